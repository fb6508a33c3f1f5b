//! Who runs a command: names and numbers by the guest's own `/etc/passwd` and `/etc/group`.

use std::fs;

/// The identity with which a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
}

/// Finds the user that `spec` means: `name`, `uid`, `name:group` or `uid:gid`; without it, root.
pub(crate) fn resolve(spec: Option<&str>) -> Result<User, String> {
    // A file that is not there has no entries.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve_in(spec.unwrap_or("0"), &passwd, &group)
}

fn resolve_in(spec: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user_part, group_part) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let number = user_part.parse::<u32>().ok();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse::<u32>().ok()?;
        let gid = fields.next()?.parse::<u32>().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        (name == user_part || number == Some(uid)).then_some((uid, gid, name, home))
    });
    let mut user = match (found, number) {
        (Some((uid, gid, name, home)), _) => User {
            uid,
            gid,
            groups: supplementary(name, gid, group),
            name: name.to_owned(),
            home: if home.is_empty() { "/" } else { home }.to_owned(),
        },
        (None, Some(uid)) => User {
            uid,
            gid: 0,
            groups: Vec::new(),
            name: uid.to_string(),
            home: if uid == 0 { "/root" } else { "/" }.to_owned(),
        },
        (None, None) => return Err(format!("there is no user `{user_part}` in the machine")),
    };
    if let Some(wanted) = group_part {
        user.gid = group_id(wanted, group)
            .ok_or_else(|| format!("there is no group `{wanted}` in the machine"))?;
        user.groups = vec![user.gid];
    }
    Ok(user)
}

fn group_id(wanted: &str, group: &str) -> Option<u32> {
    group_lines(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .or_else(|| wanted.parse().ok())
}

/// The groups that list `name` as a member, and its own.
fn supplementary(name: &str, gid: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![gid];
    groups.extend(
        group_lines(group)
            .filter(|(_, id, members)| *id != gid && members.split(',').any(|one| one == name))
            .map(|(_, id, _)| id),
    );
    groups
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\naudio:x:29:app,root\nvideo:x:44:other\n";

    fn user(spec: &str) -> Result<User, String> {
        resolve_in(spec, PASSWD, GROUP)
    }

    #[test]
    fn a_name_and_its_number_are_one_user() {
        let by_name = user("app").unwrap();
        assert_eq!(user("1000").unwrap(), by_name);
        assert_eq!((by_name.uid, by_name.gid), (1000, 1001));
        assert_eq!(by_name.groups, [1001, 29]);
        assert_eq!(by_name.home, "/home/app");
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_does() {
        let stranger = user("4242").unwrap();
        assert_eq!((stranger.uid, stranger.gid), (4242, 0));
        assert_eq!(
            user("nobody").unwrap_err(),
            "there is no user `nobody` in the machine"
        );
    }

    #[test]
    fn a_named_group_replaces_the_users_own() {
        let user_and_group = user("app:audio").unwrap();
        assert_eq!((user_and_group.uid, user_and_group.gid), (1000, 29));
        assert_eq!(user_and_group.groups, [29]);
        assert_eq!(user("1000:77").unwrap().gid, 77);
        assert!(user("app:none").is_err());
    }

    #[test]
    fn an_image_without_files_still_has_root() {
        let root = resolve_in("0", "", "").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
    }
}
