//! Mistakes in steps.

use serde_json::json;

use super::*;

#[test]
fn mistakes_of_steps_name_their_field() {
    each_has_one_mistake([
        (
            json!({"dockerfile": "FROM a", "steps": [{"action": "skip_cache"}]}),
            "steps: a build from a Dockerfile has no steps",
        ),
        (with("steps", json!({})), "steps: must be a list"),
        (with("steps", json!(["run"])), "steps[0]: must be an object"),
        (step(json!({})), "steps[1].action: is required"),
        (
            step(json!({"action": "dance"})),
            "steps[1].action: `dance` is not a step",
        ),
        (
            step(json!({"action": "run"})),
            "steps[1].command: is required",
        ),
        (
            step(json!({"action": "run", "command": 5})),
            "steps[1].command: must be a string",
        ),
        (
            step(json!({"action": "run", "command": "a\u{0}b"})),
            "steps[1].command: must not contain a NUL",
        ),
        (
            step(json!({"action": "run", "command": "a".repeat(70_000)})),
            "steps[1].command: has 70000 bytes, at most 65536",
        ),
        (
            step(json!({"action": "run", "command": "a", "cwd": "/"})),
            "steps[1].cwd: unknown field",
        ),
        (
            step(json!({"action": "run", "command": "a", "user": "a b"})),
            "steps[1].user: must be a user",
        ),
    ]);
}

#[test]
fn mistakes_of_what_steps_work_on_name_their_field() {
    each_has_one_mistake([
        (
            step(json!({"action": "pip_install"})),
            "steps[1].packages: is required",
        ),
        (
            step(json!({"action": "pip_install", "packages": []})),
            "steps[1].packages: must not be empty",
        ),
        (
            step(json!({"action": "pip_install", "packages": "x"})),
            "steps[1].packages: must be a list",
        ),
        (
            step(json!({"action": "pip_install", "packages": ["x", " "]})),
            "steps[1].packages[1]: must not be blank",
        ),
        (
            step(json!({"action": "npm_install", "packages": ["x"], "g": 1})),
            "steps[1].g: must be true or false",
        ),
        (
            step(json!({"action": "make_dir", "path": "/d", "mode": "0888"})),
            "steps[1].mode: must be permission bits",
        ),
        (
            step(json!({"action": "make_dir", "path": "/d", "mode": 4096})),
            "steps[1].mode: must be permission bits",
        ),
        (
            step(json!({"action": "make_dir", "path": "/d", "mode": "+755"})),
            "steps[1].mode: must be permission bits",
        ),
        (
            step(json!({"action": "rename", "src": "/a"})),
            "steps[1].dst: is required",
        ),
        (
            step(json!({"action": "git_clone", "url": "--upload-pack=x"})),
            "steps[1].url: must not begin with `-`",
        ),
        (
            step(json!({"action": "git_clone", "url": "u", "depth": 0})),
            "steps[1].depth: must be a whole number from 1",
        ),
        (
            step(json!({"action": "copy", "sources": ["x"], "dst": "/"})),
            "steps[1].sources[0]: `x` is not listed in build_context.files",
        ),
        (
            step(json!({"action": "copy", "sources": [], "dst": "/"})),
            "steps[1].sources: must not be empty",
        ),
        (
            step(json!({"action": "copy_items", "items": []})),
            "steps[1].items: must not be empty",
        ),
        (
            step(json!({"action": "copy_items", "items": [{"sources": ["y"], "dst": "/"}]})),
            "steps[1].items[0].sources[0]: `y` is not listed",
        ),
    ]);
}

#[test]
fn what_a_step_lacks_is_named() {
    let cases = [
        ("apt_install", json!({}), "packages"),
        ("pip_install", json!({"g": false}), "packages"),
        ("npm_install", json!({"g": true}), "packages"),
        ("bun_install", json!({"packages": null}), "packages"),
        ("run", json!({"user": "app"}), "command"),
        ("workdir", json!({}), "path"),
        ("user", json!({}), "user"),
        ("copy", json!({"dst": "/x"}), "sources"),
        ("copy_items", json!({}), "items"),
        ("make_dir", json!({"mode": "0755"}), "path"),
        ("make_symlink", json!({"path": "/x"}), "target"),
        ("make_symlink", json!({"target": "/x"}), "path"),
        ("remove", json!({"force": true}), "path"),
        ("rename", json!({"dst": "/x"}), "src"),
        ("rename", json!({"src": "/x"}), "dst"),
        ("git_clone", json!({"path": "/x"}), "url"),
    ];
    for (action, mut fields, lacking) in cases {
        fields["action"] = json!(action);
        let wanted = format!("steps[1].{lacking}: is required");
        assert_eq!(mistakes(&step(fields)), [wanted], "{action}");
    }
}

#[test]
fn paths_of_steps_are_bounded_and_have_no_nul() {
    let name = "n".repeat(256);
    let long = format!("/{}", "d/".repeat(2048));
    for (action, key, rest) in [
        ("workdir", "path", json!({})),
        ("make_dir", "path", json!({})),
        ("make_symlink", "path", json!({"target": "x"})),
        ("make_symlink", "target", json!({"path": "/x"})),
        ("remove", "path", json!({})),
        ("rename", "src", json!({"dst": "/x"})),
        ("rename", "dst", json!({"src": "/x"})),
        ("git_clone", "path", json!({"url": "u"})),
    ] {
        let with = |text: &str| {
            let mut fields = rest.clone();
            fields["action"] = json!(action);
            fields[key] = json!(text);
            step(fields)
        };
        let field = format!("steps[1].{key}");
        let nul = format!("{field}: must not contain a NUL character");
        assert_eq!(mistakes(&with("/a\0b")), [nul], "{action}");
        let bytes = format!("{field}: has 4097 bytes, at most 4095 may be");
        assert_eq!(mistakes(&with(&long)), [bytes], "{action}");
        let blank = format!("{field}: must not be blank");
        assert_eq!(mistakes(&with(" ")), [blank], "{action}");
        if key != "target" {
            let bytes = format!("{field}: has a name of 256 bytes, at most 255 may be");
            assert_eq!(
                mistakes(&with(&format!("/a/{name}/b"))),
                [bytes],
                "{action}"
            );
        }
    }
}

#[test]
fn lists_of_steps_are_bounded_and_hold_what_they_should() {
    let many = vec!["x"; 1001];
    let items: Vec<_> = many
        .iter()
        .map(|_| json!({"sources": ["x"], "dst": "/"}))
        .collect();
    each_has_one_mistake([
        (
            with("steps", json!(vec![json!({"action": "skip_cache"}); 501])),
            "steps: has 501 elements, at most 500",
        ),
        (
            step(json!({"action": "apt_install", "packages": many})),
            "steps[1].packages: has 1001 elements, at most 1000",
        ),
        (
            step(json!({"action": "apt_install", "packages": ["a\u{0}b"]})),
            "steps[1].packages[0]: must not contain a NUL",
        ),
        (
            step(json!({"action": "apt_install", "packages": ["x "]})),
            "steps[1].packages[0]: must not begin or end with a blank",
        ),
        (
            step(json!({"action": "bun_install", "packages": ["x", 1]})),
            "steps[1].packages[1]: must be a string",
        ),
        (
            step(json!({"action": "apt_install", "packages": ["x"], "g": true})),
            "steps[1].g: unknown field",
        ),
        (
            step(json!({"action": "copy", "sources": many, "dst": "/"})),
            "steps[1].sources: has 1001 elements, at most 1000",
        ),
        (
            step(json!({"action": "copy_items", "items": items})),
            "steps[1].items: has 1001 elements, at most 1000",
        ),
        (
            step(json!({"action": "copy_items", "items": ["x"]})),
            "steps[1].items[0]: must be an object",
        ),
    ]);
}

#[test]
fn other_mistakes_of_steps_name_their_field() {
    each_has_one_mistake([
        (
            step(json!({"action": "run", "command": " \n"})),
            "steps[1].command: must not be blank",
        ),
        (
            step(json!({"action": "user", "user": ""})),
            "steps[1].user: must not be blank",
        ),
        (
            step(json!({"action": "remove", "path": "/x", "recursive": "yes"})),
            "steps[1].recursive: must be true or false",
        ),
        (
            step(json!({"action": "rename", "src": "/x", "dst": "/y", "force": 1})),
            "steps[1].force: must be true or false",
        ),
        (
            step(json!({"action": "make_dir", "path": "/d", "mode": "10000"})),
            "steps[1].mode: must be permission bits",
        ),
        (
            step(json!({"action": "make_dir", "path": "/d", "mode": ""})),
            "steps[1].mode: must be permission bits",
        ),
        (
            step(json!({"action": "make_dir", "path": "/d", "mode": -1})),
            "steps[1].mode: must be permission bits",
        ),
        (
            step(json!({"action": "git_clone", "url": "u", "branch": "-b"})),
            "steps[1].branch: must not begin with `-`",
        ),
        (
            step(json!({"action": "git_clone", "url": "u", "depth": "1"})),
            "steps[1].depth: must be a whole number from 1",
        ),
        (
            step(json!({"action": "skip_cache", "path": "/x"})),
            "steps[1].path: unknown field",
        ),
    ]);
}
