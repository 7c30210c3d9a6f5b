//! Identifiers that cross the guest boundary.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A domain id (`domid_t`, `public/xen.h`).
    DomId(u16)
);
id!(
    /// A virtual CPU's number inside its domain.
    VcpuId(u32)
);
id!(
    /// An event channel port (`evtchn_port_t`, `public/event_channel.h`).
    EvtchnPort(u32)
);
id!(
    /// A grant reference (`grant_ref_t`, `public/grant_table.h`).
    GrantRef(u32)
);
id!(
    /// A virtual interrupt number (`VIRQ_*`, `public/xen.h`).
    Virq(u32)
);

impl DomId {
    /// The domain in whose place the hypervisor's own back ends stand.
    pub const CONTROL: Self = Self(0);
    /// The first id that names no real domain (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
    /// The calling domain itself (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7ff0);
    /// The hypervisor (`DOMID_XEN`).
    pub const XEN: Self = Self(0x7ff2);
    /// No domain (`DOMID_INVALID`).
    pub const INVALID: Self = Self(0x7ff4);
}
