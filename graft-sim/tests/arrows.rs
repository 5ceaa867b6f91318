//! The house as the architecture draws it: dependencies between crates only point down, and nothing
//! that weakens safety can be reached in a default build. Read from `cargo metadata`.

#![allow(clippy::expect_used, reason = "a test stops where what it needs is missing")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

fn metadata() -> Metadata {
    MetadataCommand::new().exec().expect("cargo metadata")
}

fn ours(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

/// Which crates of the workspace each crate needs to be built, tests aside.
fn arrows(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<String> =
        ours(metadata).iter().map(|package| package.name.to_string()).collect();
    let arrows = ours(metadata).into_iter().map(|package| {
        let down = package.dependencies.iter().filter(|dependency| {
            dependency.kind != DependencyKind::Development && names.contains(&dependency.name)
        });
        (package.name.to_string(), down.map(|dependency| dependency.name.clone()).collect())
    });
    arrows.collect()
}

#[test]
fn arrows_only_point_down() {
    let allowed = [
        ("graft-core", &[][..]),
        ("graft-storage", &["graft-core"]),
        ("graft-transport", &["graft-core"]),
        ("graft-client", &["graft-core"]),
        ("graft", &["graft-core", "graft-storage", "graft-transport", "graft-client"]),
        ("graft-sim", &["graft-core", "graft-storage", "graft-transport", "graft-client", "graft"]),
    ];
    let arrows = arrows(&metadata());
    for (name, allowed) in allowed {
        let found = &arrows[name];
        let wrong: Vec<_> = found.iter().filter(|one| !allowed.contains(&one.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
    for (name, down) in &arrows {
        assert!(!down.contains("graft-sim"), "{name} must not depend on the simulator");
    }
}

#[test]
fn the_core_names_no_backend() {
    let metadata = metadata();
    let core = ours(&metadata).into_iter().find(|package| package.name.as_str() == "graft-core");
    let core = core.expect("graft-core is a member");
    for banned in ["redb", "quinn", "rkyv", "socket2", "rustls"] {
        let found = core.dependencies.iter().any(|dependency| dependency.name == banned);
        assert!(!found, "graft-core must not depend on {banned}");
    }
    let always: BTreeSet<&str> = core
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal && !dependency.optional)
        .map(|dependency| dependency.name.as_str())
        .collect();
    let pure = BTreeSet::from(["bytes", "fastrand", "smallvec", "thiserror"]);
    assert_eq!(always, pure, "the pure core has no runtime in its tree");
}

/// Where known bugs live: in these crates, behind a feature of this name.
const WITH_MUTANTS: [&str; 2] = ["graft-client", "graft-core"];

#[test]
fn only_the_simulator_can_switch_mutants_on() {
    let metadata = metadata();
    let has_mutants = |package: &&Package| package.features.contains_key("mutants");
    let found: BTreeSet<&str> = ours(&metadata)
        .into_iter()
        .filter(has_mutants)
        .map(|package| package.name.as_str())
        .collect();
    let known = WITH_MUTANTS.into_iter().chain(["graft-sim"]).collect();
    assert_eq!(found, known, "a crate with mutants must be named here");
    for package in ours(&metadata) {
        let name = package.name.as_str();
        for (feature, enables) in &package.features {
            // A feature of that name may need the one of the crate below, and no other feature may.
            let weakens = enables.iter().any(|one| one.ends_with("/mutants"));
            assert!(!weakens || feature == "mutants", "{name}/{feature} switches mutants on");
            let reaches = feature != "mutants" && enables.iter().any(|one| one == "mutants");
            assert!(!reaches, "{name}/{feature} switches mutants on");
        }
        for dependency in &package.dependencies {
            let weakens = dependency.features.iter().any(|feature| feature == "mutants");
            assert!(!weakens, "{name} depends on {} with mutants", dependency.name);
        }
    }
}

#[test]
fn no_default_build_has_mutants() {
    // What cargo makes of all features that are on by default, of the whole workspace at once.
    let metadata = metadata();
    let resolved = metadata.resolve.as_ref().expect("cargo resolves what it builds");
    for node in &resolved.nodes {
        let on = node.features.iter().any(|feature| feature.as_str() == "mutants");
        assert!(!on, "{} is built with mutants by default", node.id);
    }
}

#[test]
fn every_library_keeps_the_common_rules() {
    for package in ours(&metadata()) {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        let name = package.name.as_str();
        assert_eq!(package.rust_version.as_ref().map(ToString::to_string), Some("1.90.0".into()));
        // The benches build peers whose macros need lints of their own.
        let common = manifest.contains("[lints]\nworkspace = true") || name == "graft-benches";
        assert!(common, "{name} has its own lints");
    }
}
