//! Frames, reserved entries, versions.

use super::super::Progress;
use super::*;
use abi::Errno;
use abi::grant_table::status;
use abi::memory::GRANT_TABLE_STATUS;

#[test]
fn the_table_grows_on_demand_up_to_its_limit() {
    let mut table = table();
    assert_eq!(table.frame_count(), 1);
    let (page, placed) = table.frame(5).unwrap();
    assert_eq!((table.frame_count(), placed), (6, None));
    assert_eq!(table.frame(5).unwrap().0.mfn(), page.mfn());
    assert!(table.frame(63).is_ok());
    for beyond in [64, u64::from(u32::MAX), u64::MAX, GRANT_TABLE_STATUS] {
        assert_eq!(table.frame(beyond).unwrap_err(), Errno::Einval);
    }
    assert_eq!(table.frame_count(), 64);
}

#[test]
fn a_frame_remembers_where_it_is() {
    let mut table = table();
    table.set_placed(0, Gfn::new(77));
    assert_eq!(table.placed_at(0), Some(Gfn::new(77)));
    assert_eq!(table.placed_at(1), None);
}

#[test]
fn reserved_entries_are_written_as_the_layout_says() {
    let mut table = table();
    assert_eq!(
        table.permit(GrantRef(1), DomId(0), Gfn::new(0xfeffc)),
        Ok(())
    );
    let (page, _) = table.frame(0).unwrap();
    assert_eq!(page.u64(8).load(SeqCst), 0x000f_effc_0000_0001);
    assert_eq!(
        table.permit(GrantRef(512), DomId(0), Gfn::new(1)),
        Err(Errno::Einval)
    );
    let beyond = table.permit(GrantRef(0), DomId(0), Gfn::new(1 << 32));
    assert_eq!(beyond, Err(Errno::Einval));
}

/// Asks for a version until it is there.
fn set_version(table: &mut GrantTable, version: u32) -> Result<u32, Errno> {
    let mut rounds = 1;
    while table.set_version(version)? == Progress::Again {
        rounds += 1;
        assert!(rounds < 100, "an end");
    }
    Ok(rounds)
}

#[test]
fn a_version_can_be_chosen_and_reserved_entries_come_along() {
    let mut table = table();
    table
        .permit(GrantRef(1), DomId(3), Gfn::new(0xfeffc))
        .unwrap();
    let (page, _) = table.frame(0).unwrap();
    page.u64(8 * 8).store(1, SeqCst);
    assert_eq!(set_version(&mut table, 3), Err(Errno::Einval));
    assert_eq!(set_version(&mut table, 1), Ok(1));
    assert_eq!(set_version(&mut table, 2), Ok(1));
    assert_eq!(table.version(), 2);
    // Entry 1 of version 2, and what was entry 8.
    assert_eq!(page.u64(16).load(SeqCst), 0x0003_0001);
    assert_eq!(page.u64(24).load(SeqCst), 0xfeffc);
    assert_eq!(page.u64(8 * 8).load(SeqCst), 0);
    let (status, _) = table.frame(GRANT_TABLE_STATUS).unwrap();
    assert_eq!(status.u16(2).load(SeqCst), 0);
    assert_eq!(set_version(&mut table, 1), Ok(1));
    assert_eq!(page.u64(8).load(SeqCst), 0x000f_effc_0003_0001);
    let (taken, placed) = table.take_status_frame().unwrap();
    assert_eq!((taken.mfn(), placed), (status.mfn(), None));
    assert!(table.take_status_frame().is_none());
}

#[test]
fn what_version_1_has_no_words_for_keeps_version_2() {
    let mut table = table();
    let (page, _) = table.frame(0).unwrap();
    set_version(&mut table, 2).unwrap();
    page.u64(3 * 16).store(1, SeqCst);
    page.u64(3 * 16 + 8).store(1 << 32, SeqCst);
    assert_eq!(set_version(&mut table, 1), Err(Errno::Erange));
    page.u64(3 * 16).store(3, SeqCst);
    assert_eq!(set_version(&mut table, 1), Err(Errno::Erange));
    page.u64(3 * 16).store(2, SeqCst);
    assert_eq!(set_version(&mut table, 1), Ok(1));
    assert_eq!(page.u64(3 * 8).load(SeqCst), 0);
}

#[test]
fn a_large_table_is_cleared_piece_by_piece() {
    let mut table = table();
    let pages: std::vec::Vec<PageRef> = (0..64).map(|i| table.frame(i).unwrap().0).collect();
    for page in &pages {
        page.u64(4088).store(1, SeqCst);
    }
    assert_eq!(set_version(&mut table, 2), Ok(4));
    assert!(pages.iter().all(|page| page.u64(4088).load(SeqCst) == 0));
}

#[test]
fn status_frames_come_with_the_frames_they_serve() {
    let mut table = table();
    set_version(&mut table, 2).unwrap();
    table.frame(GRANT_TABLE_STATUS).unwrap();
    assert_eq!(table.frame_count(), 1);
    table.frame(GRANT_TABLE_STATUS | 1).unwrap();
    assert_eq!(table.frame_count(), 16);
    assert_eq!(
        table.frame(GRANT_TABLE_STATUS | 8).unwrap_err(),
        Errno::Einval
    );
    table.set_placed(GRANT_TABLE_STATUS | 1, Gfn::new(9));
    let (_, placed) = table.frame(GRANT_TABLE_STATUS | 1).unwrap();
    assert_eq!((placed, table.placed_at(1)), (Some(Gfn::new(9)), None));
}

#[test]
fn entries_are_exchanged_whole_or_not_at_all() {
    let mut table = table();
    set_version(&mut table, 2).unwrap();
    let (near, far) = (GrantRef(9), GrantRef(8 * 256 + 1));
    let [first, last] = [0, 8].map(|index| table.frame(index).unwrap().0);
    first.u64(9 * 16).store(1, SeqCst);
    last.u64(16).store(2, SeqCst);
    // The status frame of the far one is still to be made.
    testing::limit_allocations(Some(0));
    let swapped = table.swap(near, far);
    testing::limit_allocations(None);
    assert_eq!(swapped, Err(status::GENERAL_ERROR));
    let seen = || (first.u64(9 * 16).load(SeqCst), last.u64(16).load(SeqCst));
    assert_eq!(seen(), (1, 2));
    assert_eq!(table.swap(near, far), Ok(()));
    assert_eq!(seen(), (2, 1));
}

#[test]
fn a_domain_can_be_held_to_version_1() {
    testing::init();
    let limits = GrantLimits {
        max_version: 1,
        max_frames: 2,
        ..GrantLimits::default()
    };
    let mut table = GrantTable::new(DomId(1), &limits).unwrap();
    assert_eq!(set_version(&mut table, 2), Err(Errno::Enosys));
    assert_eq!(set_version(&mut table, 3), Err(Errno::Einval));
    assert_eq!((table.version(), table.max_frames()), (1, 2));
    assert_eq!(table.frame(2).unwrap_err(), Errno::Einval);
}
