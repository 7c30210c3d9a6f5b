extern crate std;

use super::field::Writer;
use super::{Generator, Places, ROOM, SHAPES, random};

const PLACES: Places = Places {
    wide: true,
    argument: 0x5000,
    absent: 0x100_0000,
    domains: [1, 2, 3],
    ram: 0x100,
    hole: 0x8000,
    vcpus: 2,
};

#[test]
fn every_call_is_made() {
    let mut choice = Generator::new(1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let call = random(&mut choice, &PLACES, SHAPES);
        seen.insert((call.number, call.args[0] & 0x3f));
    }
    for shape in SHAPES {
        let call = (shape.number, shape.command);
        let timer = shape.number == abi::hypercall::SET_TIMER_OP;
        assert!(timer || seen.contains(&call), "{call:?}");
    }
}

#[test]
fn structures_are_laid_out_as_their_types() {
    let sizes = |fields: &str, wide: bool| {
        let mut bytes = [0; ROOM];
        let mut writer = Writer::new(&mut bytes, wide);
        writer.structure(&mut Generator::new(1), &PLACES, 0x5000, fields);
        writer.at
    };
    use abi::grant_table::{CompatGrantCopy, GrantCopy, MapGrantRef};
    use abi::memory::{AddToPhysmap, AddToPhysmapBatch, CompatAddToPhysmap};
    assert_eq!(sizes("AnrdhnA", true), size_of::<MapGrantRef>());
    assert_eq!(sizes("dhnkg", true), size_of::<AddToPhysmap>());
    assert_eq!(sizes("dhnkg", false), size_of::<CompatAddToPhysmap>());
    assert_eq!(sizes("dhhdaaa", true), size_of::<AddToPhysmapBatch>());
    // Without what pads the end.
    assert_eq!(sizes("kde|kde|ehh", true), size_of::<GrantCopy>() - 2);
    assert_eq!(
        sizes("kde|kde|ehh", false),
        size_of::<CompatGrantCopy>() - 2
    );
}
