//! Uplinks in descriptions.

use ::system::Archive;
use ::system::network::{Action, Nic, UplinkConfig};

use super::{Fixture, with};

#[test]
fn uplinks_are_packed() {
    let fixture = Fixture::new();
    let network = "[[network]]\nname = \"lan\"\nuplink = \"00:03.0\"\nrate = \"10M\"\n\
                   rules = [\"deny in tcp port 23\"]\n[[network]]\nname = \"wan\"\n\
                   uplink = \"first\"\n[[network]]\nname = \"own\"";
    let (report, archive) = fixture.pack(&with(network)).unwrap();
    let archive = Archive::parse(&archive).unwrap();
    let [lan, wan, own] = archive.config().networks.as_slice() else {
        panic!("three networks");
    };
    let uplink = lan.uplink.as_ref().unwrap();
    assert_eq!(uplink.nic, Nic::parse("0000:00:03.0").unwrap());
    assert_eq!(uplink.rate.unwrap().bytes_per_second, 10 << 20);
    assert_eq!((uplink.rules.len(), uplink.otherwise), (1, Action::Allow));
    assert_eq!(wan.uplink, Some(UplinkConfig::new(Nic::First)));
    assert_eq!(own.uplink, None);
    let told = "network lan: uplink 0000:00:03.0 under 1 rule\nnetwork wan: uplink first\n";
    assert!(report.to_string().contains(told), "{report}");
}

#[test]
fn mistakes_about_uplinks_are_told() {
    let fixture = Fixture::new();
    let error = |keys: &str| {
        let lan = "[[network]]\nname = \"lan\"";
        fixture.error(&with(&format!("{lan}\n{keys}")))
    };
    for (keys, told) in [
        (
            "uplink = \"eth0\"",
            "system.toml:7:10: uplink: \"eth0\" names no network card; write \"first\", its address \
             such as \"52:54:00:12:34:56\", or its place such as \"00:03.0\"",
        ),
        (
            "uplink = true",
            "system.toml:7:10: uplink: expected a string, found true; write for example `uplink = \
             \"first\"`",
        ),
        (
            "rate = \"1M\"",
            "system.toml:7:1: rate: it means nothing without `uplink`; add for example `uplink = \
             \"first\"`",
        ),
        (
            "uplink = \"first\"\n[[network]]\nname = \"wan\"\nuplink = \"first\"",
            "system.toml:10:10: uplink: network \"lan\" has this uplink, too; a network card belongs \
             to one network",
        ),
        (
            "uplnk = \"first\"",
            "system.toml:7:1: uplnk: unknown key; did you mean `uplink`?",
        ),
    ] {
        assert_eq!(error(keys), told, "{keys}");
    }
}
