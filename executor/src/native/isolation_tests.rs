//! Attacks of a step, each made twice: with the protection switched off, where it must succeed, and
//! with it, where it must fail. Attacks on the host and its network are in `network_tests`.

use std::convert::Infallible;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use domain::Digest;
use serde_json::{Value, json};

use super::disk::DiskFull;
use super::identity::IdRange;
use super::step_root::StepRoot;
use super::testkit::{Kit, Ran, fill_small_root};
use crate::layers::{Layer, LayerStore, Staging};
use crate::limits::layers::LayerLimits;
use crate::limits::native::NativeLimits;

/// What a script does with the protections that `off` takes away, and what it does otherwise.
async fn twice(kit: &mut Kit, off: fn(Value) -> Value, script: &str) -> (Ran, Ran) {
    let protected = kit.sh(script).await;
    let containers = kit.containers.clone();
    kit.containers = containers.finished_by(off);
    let bare = kit.sh(script).await;
    kit.containers = containers;
    (bare, protected)
}

fn no_seccomp(mut config: Value) -> Value {
    config["linux"]["seccomp"] = Value::Null;
    config
}

fn all_powers(mut config: Value) -> Value {
    for set in ["bounding", "effective", "permitted"] {
        let held = config["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap();
        held.push(json!("CAP_SYS_ADMIN"));
    }
    config
}

fn no_own_processes(mut config: Value) -> Value {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    config
}

fn host_environment(mut config: Value) -> Value {
    let env = config["process"]["env"].as_array_mut().unwrap();
    env.extend(std::env::vars().map(|(name, value)| json!(format!("{name}={value}"))));
    config
}

fn host_files(mut config: Value) -> Value {
    let mounts = config["mounts"].as_array_mut().unwrap();
    let options = ["rbind", "ro"];
    mounts.push(json!({
        "destination": "/host", "type": "bind", "source": "/", "options": options,
    }));
    config
}

/// Containers whose steps are the host's root.
async fn without_user_namespace() -> Kit {
    Kit::with_limits(NativeLimits {
        step_ids: None,
        ..NativeLimits::default()
    })
    .await
}

/// Tries a system call by number in perl, and prints what it answered.
fn probe(call: &str) -> String {
    format!("perl -e '$! = 0; $r = syscall({call}); print $r < 0 ? $! + 0 : \"allowed\"'")
}

#[tokio::test]
async fn a_step_loads_no_key_and_makes_no_user_namespace() {
    let mut kit = Kit::new().await;
    // Perl passes the address of a variable, and refuses that of a constant.
    let add_key = probe("248, $kind = \"user\", $name = \"isolation\", $key = \"x\", 1, -2");
    for (script, refused) in [
        (add_key, "1"),
        (probe("250, 0, -2, 1"), "1"),
        (probe("272, 0x10000000"), "38"),
    ] {
        let (bare, protected) = twice(&mut kit, no_seccomp, &script).await;
        assert_eq!(
            (bare.stdout.as_str(), protected.stdout.as_str()),
            ("allowed", refused),
            "{script}"
        );
    }
}

#[tokio::test]
async fn a_step_does_not_mount_even_if_it_gets_the_power_to() {
    let mut kit = Kit::new().await;
    let script = "mount -t tmpfs x /tmp && echo mounted";
    let (bare, protected) = twice(&mut kit, |c| all_powers(no_seccomp(c)), script).await;
    assert_eq!(
        (bare.stdout.as_str(), protected.stdout.as_str()),
        ("mounted\n", "")
    );
    // Each of the two protections holds alone.
    for half in [all_powers, no_seccomp] {
        let (half, _) = twice(&mut kit, half, script).await;
        assert_eq!(half.stdout, "");
    }
}

#[tokio::test]
async fn a_step_sees_no_process_but_its_own() {
    let mut kit = without_user_namespace().await;
    let script = "cat /proc/[0-9]*/comm";
    let (bare, protected) = twice(&mut kit, no_own_processes, script).await;
    assert!(bare.stdout.contains("runc"), "{}", bare.stdout);
    assert_eq!(protected.stdout, "sh\n");
    assert_eq!(Kit::new().await.sh(script).await.stdout, "sh\n");
}

#[tokio::test]
async fn a_step_sees_no_variable_of_the_host() {
    let mut kit = Kit::new().await;
    let script = "cat /proc/[0-9]*/environ; env";
    let (bare, protected) = twice(&mut kit, host_environment, script).await;
    assert!(
        bare.stdout.contains("CARGO_MANIFEST_DIR"),
        "{}",
        bare.stdout
    );
    assert!(!protected.stdout.contains("CARGO"), "{}", protected.stdout);
}

#[tokio::test]
async fn a_step_reads_no_file_of_the_host_even_if_it_comes_to_see_it() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let path = secret.path().to_str().unwrap();
    let script =
        format!("cat {path} || cat /host{path} || {{ ls /host > /dev/null && echo seen; }}");
    let mut kit = without_user_namespace().await;
    let (bare, protected) = twice(&mut kit, host_files, &script).await;
    assert_eq!(
        (bare.stdout.as_str(), protected.stdout.as_str()),
        ("secret", "")
    );
    // The same hole in the wall, but the step's root is not the host's.
    let (bare, protected) = twice(&mut Kit::new().await, host_files, &script).await;
    assert_eq!(
        (bare.stdout.as_str(), protected.stdout.as_str()),
        ("seen\n", "")
    );
    assert!(bare.stderr.contains("Permission denied"), "{}", bare.stderr);
}

#[tokio::test]
async fn a_fork_bomb_meets_its_bound_and_the_exit_says_so() {
    let run = async |pids_max| {
        let limits = NativeLimits {
            pids_max,
            ..NativeLimits::default()
        };
        let kit = Kit::with_limits(limits).await;
        let ran = kit
            .sh("for i in $(seq 200); do sleep 20 & done; echo all")
            .await;
        kit.assert_nothing_is_left("no-process-has-this");
        ran
    };
    let (bare, protected) = (run(4096).await, run(64).await);
    assert!(
        bare.exit.is_success() && !bare.exit.out_of_processes,
        "{bare:?}"
    );
    assert_eq!(bare.stdout, "all\n");
    assert!(protected.exit.out_of_processes, "{protected:?}");
    assert_eq!(protected.stdout, "");
}

#[tokio::test]
async fn eaten_memory_meets_its_bound_and_the_exit_says_so() {
    let kit = Kit::new().await;
    let run = async |memory_mib| {
        let mut spec = kit.spec("perl -e '$x = \"x\" x (64 * 1024 * 1024); print length $x'");
        spec.memory_mib = memory_mib;
        kit.run(spec).await.unwrap()
    };
    let (bare, protected) = (run(256).await, run(32).await);
    assert_eq!(bare.stdout, "67108864");
    assert!(protected.exit.out_of_memory, "{protected:?}");
    assert_eq!(protected.stdout, "");
}

fn no_processor_bound(mut config: Value) -> Value {
    config["linux"]["resources"]["cpu"] = Value::Null;
    config
}

/// Whether the kernel held a step of two busy processes back. Needs a host with two processors.
async fn is_held_back(kit: &Kit) -> bool {
    let script = "for i in 1 2; do perl -e '1 until (times)[0] > 1' & done; wait";
    let mut run = std::pin::pin!(kit.run(kit.spec(script)));
    let mut held_back = false;
    loop {
        tokio::select! {
            ran = &mut run => {
                assert!(ran.unwrap().exit.is_success());
                return held_back;
            }
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                let groups = kit.control_groups().into_iter();
                let counted = groups.flat_map(|group| std::fs::read_to_string(group.join("cpu.stat")));
                held_back |= counted.flat_map(|text| {
                    let counts = text.lines().filter_map(|line| line.strip_prefix("nr_throttled "));
                    counts.map(|count| count != "0").collect::<Vec<_>>()
                }).any(|more| more);
            }
        }
    }
}

#[tokio::test]
async fn busy_processes_share_the_processors_of_their_step() {
    let mut kit = Kit::new().await;
    assert!(is_held_back(&kit).await);
    kit.containers = kit.containers.clone().finished_by(no_processor_bound);
    assert!(!is_held_back(&kit).await);
}

/// A store with the small root in it.
struct Site {
    kit: Kit,
    _folder: tempfile::TempDir,
    store: LayerStore,
    base: Layer,
}

impl Site {
    async fn new(limits: NativeLimits) -> Self {
        let (kit, folder) = (Kit::with_limits(limits).await, tempfile::tempdir().unwrap());
        let path = folder.path().canonicalize().unwrap().join("layers");
        let store = LayerStore::open(path, LayerLimits::default()).unwrap();
        let fill = |staging: Staging| async move {
            fill_small_root(staging.path()).await;
            Ok::<_, Infallible>(())
        };
        let (base, _) = store.get_or_build(Digest::of(b"base"), fill).await.unwrap();
        Self {
            kit,
            _folder: folder,
            store,
            base,
        }
    }

    /// Runs a script on the base, and gives its layer.
    async fn layer(&self, script: &str) -> (Ran, Layer) {
        let (mut ran, base) = (None, vec![self.base.clone()]);
        let run = async |staging: Staging| {
            let ids = self.kit.containers.ids();
            let mut spec = self.kit.spec(script);
            spec.rootfs = StepRoot::layers(&base, &staging, ids).unwrap();
            ran = Some(self.kit.run(spec).await.unwrap());
            Ok::<_, Infallible>(())
        };
        let key = Digest::of(script.as_bytes());
        let (layer, _) = self.store.get_or_build(key, run).await.unwrap();
        (ran.unwrap(), layer)
    }
}

fn disk_bound(mib: u64) -> NativeLimits {
    NativeLimits {
        disk_bytes_max: mib * 1024 * 1024,
        ..NativeLimits::default()
    }
}

#[tokio::test]
async fn a_filled_disk_meets_its_bound_and_the_exit_says_so() {
    let one_file = "head -c 48m /dev/zero > /big && echo done";
    let many_files = "for i in $(seq 6); do head -c 8m /dev/zero > /f$i; done; sleep 3; echo done";
    let removed_files = "exec 3>/a 4>/b 5>/c; rm /a /b /c
        for to in 3 4 5; do head -c 12m /dev/zero >&$to; done; sleep 3; echo done";
    let (bare, protected) = (
        Site::new(disk_bound(4096)).await,
        Site::new(disk_bound(16)).await,
    );
    for script in [one_file, many_files, removed_files] {
        let (ran, _) = bare.layer(script).await;
        assert_eq!(
            (ran.stdout.as_str(), ran.exit.disk_full),
            ("done\n", None),
            "{script}"
        );
        let (ran, _) = protected.layer(script).await;
        let bytes_max = 16 * 1024 * 1024;
        assert_eq!(
            ran.exit.disk_full,
            Some(DiskFull::Step { bytes_max }),
            "{ran:?}"
        );
        assert_eq!(ran.stdout, "", "{script}");
    }
    protected.kit.assert_nothing_is_left("no-process-has-this");
}

#[tokio::test]
async fn a_step_on_a_full_host_is_told_so() {
    let limits = NativeLimits {
        disk_free_bytes_min: u64::MAX,
        ..NativeLimits::default()
    };
    let bytes_min = limits.disk_free_bytes_min;
    let (ran, _) = Site::new(limits).await.layer("exit 1").await;
    assert_eq!(ran.exit.disk_full, Some(DiskFull::Host { bytes_min }));
}

#[tokio::test]
async fn space_is_taken_by_writing_only() {
    let mut kit = Kit::new().await;
    let call = |mode| {
        let open = "open(F, \"+>\", \"/f\"); print F \"x\" x 9000; $| = 1; select(F); $| = 1;";
        format!(
            "perl -e '{open} $r = syscall(285, fileno(F), {mode}, 0, 4096); print STDOUT $r < 0 ? $! + 0 : \"allowed\"'"
        )
    };
    let (bare, protected) = twice(&mut kit, no_seccomp, &call(0)).await;
    assert_eq!(
        (bare.stdout.as_str(), protected.stdout.as_str()),
        ("allowed", "95")
    );
    assert_eq!(kit.sh(&call(3)).await.stdout, "allowed");
}

/// Everything that a layer says about its files, one line each.
fn listing(layer: &Path) -> Vec<String> {
    let lines = walkdir::WalkDir::new(layer).sort_by_file_name();
    let lines = lines.into_iter().map(|entry| {
        let entry = entry.unwrap();
        let (path, stat) = (entry.path(), entry.path().symlink_metadata().unwrap());
        let mut value = [0_u8; 64];
        let attributes: Vec<String> = ["trusted.overlay.opaque", "security.capability"]
            .iter()
            .filter_map(|name| {
                let length = rustix::fs::lgetxattr(path, *name, &mut value).ok()?;
                Some(format!("{name}={:?}", &value[..length]))
            })
            .collect();
        format!(
            "{} {:o} {}:{} {} {:x} {:?} {attributes:?}",
            path.strip_prefix(layer).unwrap().display(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            if stat.is_dir() { 0 } else { stat.size() },
            stat.rdev(),
            std::fs::read_link(path).ok(),
        )
    });
    lines.collect()
}

/// Gives a copy of `cat` the capability to bind low ports, in the form that `setcap` writes.
const SET_CAPABILITY: &str = "mkdir /srv; cat /bin/sh > /srv/sh; chmod 755 /srv/sh
    perl -e 'exit(syscall(188, $file = \"/srv/sh\", $name = \"security.capability\", \
    $value = pack(\"V5\", 0x02000001, 1024, 0, 0, 0), 20, 0) != 0)'";

#[tokio::test]
async fn a_layer_is_the_same_with_and_without_a_user_namespace() {
    let script = format!(
        "set -e; {SET_CAPABILITY}
        touch /srv/a; chown 1000:1001 /srv/a; mkdir -p /srv/d/e; chown 33:33 /srv/d
        ln -s nowhere /srv/l; ln /srv/a /srv/hard; cat /bin/sh > /srv/s; chmod 4755 /srv/s
        chown app /etc/passwd; rm /etc/group; rm -r /home; mkdir /home; mv /tmp /tmp2"
    );
    let with = Site::new(NativeLimits::default()).await;
    let without = Site::new(NativeLimits {
        step_ids: None,
        ..NativeLimits::default()
    });
    let without = without.await;
    let ((ran, mapped), (_, plain)) = (with.layer(&script).await, without.layer(&script).await);
    assert!(ran.exit.is_success(), "{ran:?}");
    let (mapped, plain) = (listing(mapped.path()), listing(plain.path()));
    assert!(
        mapped.iter().any(|line| line.contains("1000:1001")),
        "{mapped:#?}"
    );
    assert!(
        mapped.iter().any(|line| line.contains("opaque")),
        "{mapped:#?}"
    );
    assert!(
        mapped.iter().any(|line| line.contains("capability")),
        "{mapped:#?}"
    );
    assert_eq!(mapped, plain);
}

#[tokio::test]
async fn setuid_programs_and_file_capabilities_work_in_a_step() {
    let kit = Kit::new().await;
    let prepared = kit
        .sh(&format!(
            "chmod 755 /; {SET_CAPABILITY} && cat /bin/id > /srv/id || cat /usr/bin/id > /srv/id
            chmod 4755 /srv/id"
        ))
        .await;
    assert!(prepared.exit.is_success(), "{prepared:?}");
    let mut spec = kit.spec("/srv/id -u; /srv/sh -c 'cat < /proc/$$/status'");
    spec.user = "app".to_owned();
    let ran = kit.run(spec).await.unwrap();
    assert!(ran.stdout.starts_with("0\n"), "{ran:?}");
    assert!(ran.stdout.contains("CapEff:\t0000000000000400"), "{ran:?}");
}

#[tokio::test]
async fn files_of_unmapped_users_are_nobodys_and_break_nothing() {
    let kit = Kit::with_limits(NativeLimits {
        step_ids: Some(IdRange {
            first: 300_000,
            count: 2000,
        }),
        ..NativeLimits::default()
    })
    .await;
    let file = kit.root.path().join("far");
    std::fs::write(&file, "content").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::chown(&file, Some(5000), Some(5000)).unwrap();
    let ran = kit.sh("stat -c %u:%g /far; cat /far; touch /new").await;
    assert_eq!(
        (ran.stdout.as_str(), ran.exit.code),
        ("65534:65534\ncontent", Some(0))
    );
    assert!(!kit.sh("chown 0 /far").await.exit.is_success());
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 5000);
}
