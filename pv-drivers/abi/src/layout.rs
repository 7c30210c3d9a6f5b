//! Compile-time checks of guest-visible layouts.

/// Asserts a type's size and the offsets of the fields named; a wrong one does not compile.
macro_rules! assert_layout {
    ($type:ty, $size:literal $(, $field:ident @ $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}

/// Declares `#[repr(C)]` structs that are copied to and from guest memory as plain bytes.
///
/// Padding is always spelled out, so that no byte of a copy to a guest is ever uninitialised.
macro_rules! guest_structs {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident: $size:literal {
            $($(#[$field_doc:meta])* $vis:vis $field:ident: $type:ty = $offset:literal,)*
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            zerocopy::FromBytes,
            zerocopy::IntoBytes,
            zerocopy::Immutable,
            zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* $vis $field: $type,)*
        }
        crate::layout::assert_layout!($name, $size $(, $field @ $offset)*);
    )+};
}

pub(crate) use assert_layout;
pub(crate) use guest_structs;
