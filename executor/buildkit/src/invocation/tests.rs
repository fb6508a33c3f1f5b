//! Command lines and files.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

fn plain() -> Invocation {
    Invocation {
        context: "/build/context".into(),
        dockerfile_dir: "/build/dockerfile".into(),
        dockerfile_name: "Dockerfile".to_owned(),
        build_args: BTreeMap::new(),
        target: None,
        no_cache: false,
        stages: vec![None],
        network: Network::Default,
        images: ImagePolicy::new(),
        cache_namespace: "tenant".to_owned(),
        secrets: Vec::new(),
        registries: Vec::new(),
        output: "/build/output".into(),
    }
}

fn arguments(invocation: &Invocation) -> Vec<String> {
    let arguments = invocation.arguments(Path::new("/private"), "mark");
    arguments
        .into_iter()
        .map(|argument| argument.into_string().unwrap())
        .collect()
}

fn secret(id: &str, value: &str) -> (String, SecretSlice<u8>) {
    (id.to_owned(), value.as_bytes().to_vec().into())
}

fn args(args: &[(&str, &str)]) -> BTreeMap<String, String> {
    args.iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_least_that_is_asked_for() {
    assert_eq!(
        arguments(&plain()),
        [
            "build",
            "--progress=rawjson",
            "--frontend",
            "dockerfile.v0",
            "--local",
            "context=/build/context",
            "--local",
            "dockerfile=/build/dockerfile",
            "--opt",
            "cmdline=dockerfile.v0",
            "--opt",
            "filename=Dockerfile",
            "--opt",
            "build-arg:BUILDKIT_CACHE_MOUNT_NS=tenant",
            "--opt",
            "hostname=tenant",
            "--opt",
            "nullspace.invocation=mark",
            "--source-policy-file",
            "/private/policy.json",
            "--output",
            "\"type=oci\",\"tar=false\",\"dest=/build/output\",\"compression=uncompressed\",\
             \"force-compression=true\"",
        ]
    );
}

#[test]
fn all_that_can_be_asked_for() {
    let invocation = Invocation {
        dockerfile_name: "docker/My.Dockerfile".to_owned(),
        build_args: args(&[("A", "b=c,\"d\""), ("EMPTY", "")]),
        target: Some("final".to_owned()),
        no_cache: true,
        network: Network::None,
        secrets: vec![secret("one", "1"), secret("a,\"b\"", "2")],
        output: "/build/out,\"put\"".into(),
        ..plain()
    };
    let least = arguments(&plain());
    let more: Vec<String> = arguments(&invocation)
        .into_iter()
        .filter(|argument| !least.contains(argument))
        .collect();
    assert_eq!(
        more,
        [
            "filename=docker/My.Dockerfile",
            "build-arg:A=b=c,\"d\"",
            "build-arg:EMPTY=",
            "target=final",
            "force-network-mode=none",
            "--secret",
            "\"id=one\",\"src=/private/0\"",
            "--secret",
            "\"id=a,\"\"b\"\"\",\"src=/private/1\"",
            "\"type=oci\",\"tar=false\",\"dest=/build/out,\"\"put\"\"\",\
             \"compression=uncompressed\",\"force-compression=true\"",
            "--no-cache",
        ]
    );
    assert!(
        arguments(&invocation)
            .iter()
            .all(|argument| !argument.starts_with("--allow"))
    );
}

/// Why an invocation is refused, by a driver that takes secrets of four bytes.
#[track_caller]
fn refusal(invocation: Invocation) -> String {
    let limits = BuildkitLimits {
        secret_bytes_max: 4,
        ..BuildkitLimits::default()
    };
    invocation.check(&limits).unwrap_err().to_string()
}

fn with_secrets(given: &[(&str, &str)]) -> Invocation {
    Invocation {
        secrets: given.iter().map(|(id, value)| secret(id, value)).collect(),
        ..plain()
    }
}

#[test]
fn a_dockerfile_is_inside_its_folder() {
    let named = |name: &str| Invocation {
        dockerfile_name: name.to_owned(),
        ..plain()
    };
    for name in ["", "/Dockerfile", "..", "a/../../b"] {
        let why = format!("`{name}` is not a path in the Dockerfile's folder");
        assert_eq!(refusal(named(name)), why);
    }
    named("./docker/Dockerfile")
        .check(&BuildkitLimits::default())
        .unwrap();
}

#[test]
fn a_build_argument_is_one_of_the_dockerfile_and_arrives_whole() {
    let given = |name: &str, value: &str| Invocation {
        build_args: args(&[(name, value)]),
        ..plain()
    };
    for name in ["", "a=b", "a\0"] {
        let why = format!("`{name}` cannot be the name of a build argument");
        assert_eq!(refusal(given(name, "c")), why);
    }
    for name in ["BUILDKIT_SYNTAX", "BUILDKIT_CACHE_MOUNT_NS"] {
        let why =
            format!("the build argument `{name}` is reserved: names must not begin with BUILDKIT_");
        assert_eq!(refusal(given(name, "other")), why);
    }
    let long = "x".repeat(TEXT_BYTES_MAX);
    for value in [&long, "\0"] {
        let why = "the build argument `A` has a zero byte or more than 131008 bytes";
        assert_eq!(refusal(given("A", value)), why);
    }
}

#[test]
fn secrets_have_ids_that_differ_and_values_that_fit() {
    for id in ["", "a\nb"] {
        let why = format!("`{id}` cannot be the id of a secret");
        assert_eq!(refusal(with_secrets(&[(id, "a")])), why);
    }
    let twice = with_secrets(&[("a", "1"), ("a", "2")]);
    assert_eq!(refusal(twice), "there are two secrets with the id `a`");
    let large = with_secrets(&[("a", "12345")]);
    assert_eq!(refusal(large), "the secret `a` has more than 4 bytes");
    let fine = with_secrets(&[("a", ""), ("b", "12345")]);
    fine.check(&BuildkitLimits::default()).unwrap();
}

#[test]
fn each_registry_has_one_login_that_can_be_used() {
    let given = |logins: &[(&str, &str)]| {
        let login = |&(host, user): &(&str, &str)| RegistryLogin {
            host: host.to_owned(),
            user: user.to_owned(),
            password: "password".into(),
        };
        Invocation {
            registries: logins.iter().map(login).collect(),
            ..plain()
        }
    };
    for (logins, host) in [
        ([("", "user")].as_slice(), ""),
        (&[("host", "us:er")], "host"),
        (
            &[("docker.io", "a"), ("index.docker.io", "b")],
            "index.docker.io",
        ),
    ] {
        let why = format!("the login for the registry `{host}` cannot be used");
        assert_eq!(refusal(given(logins)), why);
    }
    let fine = given(&[("docker.io", "a"), ("localhost:5000", "b")]);
    fine.check(&BuildkitLimits::default()).unwrap();
}

#[test]
fn caches_belong_to_somebody_whose_name_can_be_that_of_a_host() {
    let of = |name: &str| Invocation {
        cache_namespace: name.to_owned(),
        ..plain()
    };
    for name in [
        "",
        "-a",
        "a-",
        "a.b",
        "a_b",
        "a/b",
        "a\0",
        "\u{e4}",
        &"a".repeat(64),
    ] {
        assert_eq!(
            refusal(of(name)),
            format!("`{name}` cannot be a namespace of caches")
        );
    }
    for name in ["a", "A-9", &"a".repeat(63)] {
        of(name).check(&BuildkitLimits::default()).unwrap();
    }
}

#[test]
fn a_target_can_be_passed_on() {
    let odd = Invocation {
        target: Some("a\0".to_owned()),
        ..plain()
    };
    assert_eq!(
        refusal(odd),
        "the target has a zero byte or more than 131008 bytes"
    );
}

/// Files by their names.
#[derive(Default)]
struct Files(BTreeMap<String, Rc<RefCell<Vec<u8>>>>);

struct File(Rc<RefCell<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn secrets_are_in_files_that_are_named_by_their_places() {
    let invocation = Invocation {
        secrets: vec![
            secret("../../etc/passwd", "one"),
            secret("config.json", "two"),
        ],
        ..plain()
    };
    let mut files = Files::default();
    let create = |name: &str| Ok(File(Rc::clone(files.0.entry(name.to_owned()).or_default())));
    invocation.write_private_files(create).unwrap();
    let names: Vec<&str> = files.0.keys().map(String::as_str).collect();
    assert_eq!(names, ["0", "1", "config.json", "policy.json"]);
    assert_eq!(*files.0["0"].borrow(), b"one");
    assert_eq!(*files.0["1"].borrow(), b"two");
    assert_eq!(invocation.private_bytes().sum::<usize>(), 6);
}
