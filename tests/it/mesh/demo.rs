//! `rhumb demo mesh --check`: one line, and an exit code.

use rhumb_testkit::process::{Rhumb, finish};

fn check(more: &[&str]) -> String {
    let mut command = Rhumb::command();
    command.args(["demo", "mesh", "--check", "--log-level", "error"]).args(more);
    let done = finish(command);
    assert_eq!(done.code, Some(0), "{}", done.output);
    assert_eq!(done.output.lines().count(), 1, "{}", done.output);
    done.output
}

#[test]
fn the_demonstration_holds_on_machines_of_its_own() {
    let told = check(&[]);
    for found in [
        "20 of 20 calls crossed the gateway and 3 services",
        "none readable",
        "refused the gateway",
        "plain text was refused",
    ] {
        assert!(told.contains(found), "{told}");
    }
}

#[test]
fn the_demonstration_holds_side_by_side() {
    assert!(check(&["--loopback"]).contains("an identity of another authority was refused"));
}
