//! Error numbers a hypercall returns, negated, in RAX (`public/errno.h`).

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal),+ $(,)?) => {
        /// An error a hypercall reports to its caller.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Errno {
            $($(#[$doc])* $name = $value),+
        }
    };
}

errnos! {
    /// Operation not permitted.
    Eperm = 1,
    /// No such entry.
    Enoent = 2,
    /// No such domain.
    Esrch = 3,
    /// Interrupted.
    Eintr = 4,
    /// Input or output error.
    Eio = 5,
    /// No such device or address.
    Enxio = 6,
    /// Argument list too long.
    E2big = 7,
    /// Try again.
    Eagain = 11,
    /// Out of memory.
    Enomem = 12,
    /// Permission denied.
    Eacces = 13,
    /// Bad address.
    Efault = 14,
    /// Busy.
    Ebusy = 16,
    /// Already exists.
    Eexist = 17,
    /// Cross-domain link.
    Exdev = 18,
    /// No such device.
    Enodev = 19,
    /// Invalid argument.
    Einval = 22,
    /// No space left.
    Enospc = 28,
    /// Read-only.
    Erofs = 30,
    /// Argument out of the function's domain.
    Edom = 33,
    /// Out of range.
    Erange = 34,
    /// Not implemented.
    Enosys = 38,
    /// No data.
    Enodata = 61,
    /// Value too large.
    Eoverflow = 75,
    /// Illegal sequence.
    Eilseq = 84,
    /// Operation not supported.
    Eopnotsupp = 95,
}

impl Errno {
    /// The value a hypercall returns in RAX: the negated number, sign-extended.
    #[must_use]
    pub const fn to_rax(self) -> u64 {
        (self as u64).wrapping_neg()
    }
}
