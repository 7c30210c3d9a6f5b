//! Disks in descriptions.

use std::fs;

use ::system::{Archive, DiskSource};

use super::{Fixture, with};

#[test]
fn disks_are_packed_with_their_images() {
    let fixture = Fixture::new();
    let disks = r#"
        initrd = "initrd.img"
        [[domain.disk]]
        name = "xvda"
        image = "initrd.img"
        read_only = true

        [[domain.disk]]
        name = "xvdb"
        size = "64M"
    "#;
    let (report, bytes) = fixture.pack(&with(disks)).unwrap();
    let shown = ", xvda of 0.1 MiB from initrd.img, read-only, xvdb of 64 MiB\n";
    assert!(report.to_string().contains(shown), "{report}");
    let archive = Archive::parse(&bytes).unwrap();
    let domain = &archive.config().domains[0];
    let [image, blank] = domain.disks.as_slice() else {
        panic!("two disks");
    };
    assert_eq!((image.name.0, image.read_only), (0, true));
    let empty = DiskSource::Ram {
        image: None,
        sectors: 131_072,
    };
    assert_eq!((blank.name.0, &blank.source), (1, &empty));
    let DiskSource::Ram {
        image: Some(file),
        sectors: 1,
    } = image.source
    else {
        panic!("{image:?}");
    };
    let contents = archive.file(file, &mut || ()).unwrap();
    assert_eq!(contents, b"070701");
    // A file that is named twice is there once.
    assert_eq!(domain.initrd, Some(file));
}

#[test]
fn mistakes_about_disks_are_told() {
    let error = |keys: &str| Fixture::new().error(&with(&format!("[[domain.disk]]\n{keys}")));
    for (keys, told) in [
        (
            "size = \"1M\"",
            "system.toml:5:1: name: missing; add for example `name = \"xvda\"`",
        ),
        (
            "name = \"sda\"\nsize = \"1M\"",
            "system.toml:6:8: name: \"sda\" is no disk; use xvda to xvdp",
        ),
        (
            "name = \"xvda\"\nsize = \"0M\"",
            "system.toml:7:8: size: a disk cannot have \"0M\"; give it 1K to 1T",
        ),
        (
            "name = \"xvda\"\nsize = \"big\"",
            "system.toml:7:8: size: \"big\" is no size; write a whole number and K, M, G or T, \
             such as \"256M\"",
        ),
        (
            "name = \"xvda\"",
            "system.toml:6:8: size: missing; add for example `size = \"64M\"`, an image, or a `disk`",
        ),
        (
            "name = \"xvda\"\nimage = \"none.img\"",
            "system.toml:7:9: image: cannot read \"none.img\": there is no such file; paths are \
             relative to the description, `debian:cloud` is Debian's kernel",
        ),
        (
            "name = \"xvda\"\nimage = \"vmlinuz\"\nsize = \"1K\"",
            "system.toml:8:8: size: the image has 0.1 MiB; give the disk as much or more, or leave \
             the key out",
        ),
        (
            "name = \"xvda\"\nsize = \"1M\"\n[[domain.disk]]\nname = \"xvda\"\nsize = \"2M\"",
            "system.toml:9:8: name: two disks of this domain are called xvda; give each its own name",
        ),
        (
            "name = \"xvda\"\nsize = \"1M\"\npartition = \"root\"",
            "system.toml:8:13: partition: there is no `disk` that it could be a part of; name one",
        ),
        (
            "name = \"xvda\"\ndisk = \"S1\"\nimage = \"vmlinuz\"",
            "system.toml:8:9: image: a disk has either an image or a `disk` of the machine behind it",
        ),
        (
            "name = \"xvda\"\ndisk = \"S1\"\npartition = \"root\"\nstart = \"1M\"",
            "system.toml:9:9: start: a disk is one part only; give one of partition, partition_uuid \
             and start",
        ),
        (
            "name = \"xvda\"\ndisk = \"S1\"\nsize = \"1M\"",
            "system.toml:8:8: size: only a range has a size of its own; give `start` too, or leave \
             it out",
        ),
        (
            "name = \"xvda\"\ndisk = \"S1\"\nstart = \"1M\"",
            "system.toml:8:9: start: a range needs a `size`; add for example `size = \"64M\"`",
        ),
        (
            "name = \"xvda\"\ndisk = \"S1\"\npartition_uuid = \"17\"",
            "system.toml:8:18: partition_uuid: \"17\" is no UUID; see `lsblk -o PARTUUID`",
        ),
        (
            "name = \"xvda\"\nsize = \"1M\"\nreadonly = true",
            "system.toml:8:1: readonly: unknown key; did you mean `read_only`?",
        ),
    ] {
        assert_eq!(error(keys), told, "{keys}");
    }
}

#[test]
fn parts_of_the_machines_disks_are_packed() {
    let fixture = Fixture::new();
    let disks = |modes: [&str; 2]| {
        format!(
            r#"
            [[domain.disk]]
            name = "xvda"
            disk = "S1"
            start = "1M"
            size = "2M"
            {}

            [[domain.disk]]
            name = "xvdb"
            disk = "S1"
            {}
            "#,
            modes[0], modes[1]
        )
    };
    let shown = ", xvda on disk \"S1\" (4096 sectors from 2048 on), read-only, xvdb on disk \"S1\" \
                 (all of it), read-only\n";
    let (report, _) = fixture
        .pack(&with(&disks(["read_only = true"; 2])))
        .unwrap();
    assert!(report.to_string().contains(shown), "{report}");
    fs::remove_file(fixture.path("system.tsa")).unwrap();
    let error = fixture.error(&with(&disks(["read_only = true", ""])));
    assert!(
        error.contains("/xvda and ") && error.contains("overlap on disk \"S1\""),
        "{error}"
    );
}
