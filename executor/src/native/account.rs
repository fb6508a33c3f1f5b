//! Users of an image: names and numbers looked up in its own `/etc/passwd` and `/etc/group`.

use std::io;
use std::path::Path;

use super::view::{Ownership, View};

/// The user that a process in a view runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User and main group.
    pub owner: Ownership,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home folder.
    pub home: String,
}

/// Why a user was not found.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The image has no such user.
    #[error("the image has no user `{0}`")]
    UnknownUser(String),
    /// The image has no such group.
    #[error("the image has no group `{0}`")]
    UnknownGroup(String),
    /// A file of the image could not be read.
    #[error("cannot read `{path}` of the image")]
    Read {
        /// The file, as the image names it.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl Account {
    /// Looks up `user`: a name or a number, with `:` and a group (name or number) if one is named.
    ///
    /// As in other builders, a number needs no entry in the image: its group is then 0 and its home `/`.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn find(view: &View, user: &str, file_bytes_max: u64) -> Result<Self, AccountError> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let user = if user.is_empty() { "root" } else { user };
        let passwd = read(view, "/etc/passwd", file_bytes_max)?;
        let groups = read(view, "/etc/group", file_bytes_max)?;
        let entry = passwd
            .lines()
            .filter_map(Passwd::parse)
            .find(|entry| entry.is(user));
        let (uid, gid, home) = match (&entry, user.parse::<u32>(), user) {
            (Some(entry), _, _) => (entry.uid, entry.gid, entry.home),
            (None, Ok(uid), _) => (uid, 0, "/"),
            // An image from scratch has no file of users, and yet a root.
            (None, Err(_), "root") => (0, 0, "/root"),
            (None, Err(_), _) => return Err(AccountError::UnknownUser(user.to_owned())),
        };
        let home = if home.starts_with('/') { home } else { "/" }.to_owned();
        let Some(group) = group.filter(|group| !group.is_empty()) else {
            let member_of = entry
                .map(|entry| memberships(&groups, entry.name))
                .unwrap_or_default();
            return Ok(Self {
                owner: Ownership { uid, gid },
                groups: member_of,
                home,
            });
        };
        let gid = groups
            .lines()
            .filter_map(Group::parse)
            .find(|entry| entry.name == group)
            .map(|entry| entry.gid)
            .or_else(|| group.parse().ok())
            .ok_or_else(|| AccountError::UnknownGroup(group.to_owned()))?;
        Ok(Self {
            owner: Ownership { uid, gid },
            groups: Vec::new(),
            home,
        })
    }
}

/// Reads a file of accounts; an image without one has no named accounts.
fn read(view: &View, path: &'static str, bytes_max: u64) -> Result<String, AccountError> {
    match view.read(Path::new(path), bytes_max) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if super::view::is_absent(&error) => Ok(String::new()),
        Err(source) => Err(AccountError::Read { path, source }),
    }
}

/// A line of `/etc/passwd`.
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (_comment, home) = (fields.next()?, fields.next()?);
        Some(Self {
            name,
            uid,
            gid,
            home,
        })
    }

    fn is(&self, user: &str) -> bool {
        self.name == user || user.parse() == Ok(self.uid)
    }
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    }
}

/// The groups that list `user` as a member, sorted.
fn memberships(groups: &str, user: &str) -> Vec<u32> {
    let mut gids: Vec<u32> = groups
        .lines()
        .filter_map(Group::parse)
        .filter(|group| group.members.split(',').any(|member| member == user))
        .map(|group| group.gid)
        .collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> (tempfile::TempDir, View) {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(
            etc.join("passwd"),
            "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(
            etc.join("group"),
            "root:x:0:\nstaff:x:50:app,x\napp:x:1001:\n",
        )
        .unwrap();
        let view = View::open(root.path()).unwrap();
        (root, view)
    }

    fn find(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let (_root, view) = image();
        Account::find(&view, user, 1024)
            .map(|found| (found.owner.uid, found.owner.gid, found.groups, found.home))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        let app = (1000, 1001, vec![50], "/home/app".to_owned());
        assert_eq!(find("app"), Ok(app.clone()));
        assert_eq!(find("1000"), Ok(app));
        assert_eq!(
            find("app:staff"),
            Ok((1000, 50, vec![], "/home/app".to_owned()))
        );
        assert_eq!(find("7:9"), Ok((7, 9, vec![], "/".to_owned())));
        assert_eq!(find("7"), Ok((7, 0, vec![], "/".to_owned())));
        assert_eq!(find(""), Ok((0, 0, vec![], "/root".to_owned())));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_it() {
        assert_eq!(
            find("nobody2"),
            Err("the image has no user `nobody2`".to_owned())
        );
        assert_eq!(
            find("app:none"),
            Err("the image has no group `none`".to_owned())
        );
    }
}
