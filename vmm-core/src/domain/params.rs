//! HVM parameters: what a guest finds its console and store by (`public/hvm/params.h`).

use abi::Errno;

/// Number of parameters (`HVM_NR_PARAMS`).
pub const COUNT: usize = 39;

/// The domain's parameters, by index.
#[derive(Clone, Debug)]
pub struct HvmParams {
    values: [u64; COUNT],
}

impl Default for HvmParams {
    fn default() -> Self {
        Self { values: [0; COUNT] }
    }
}

impl HvmParams {
    /// The parameter's value.
    ///
    /// # Errors
    /// [`Errno::Einval`] when there is no such parameter.
    pub fn get(&self, index: u32) -> Result<u64, Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::Einval)?;
        self.values.get(index).copied().ok_or(Errno::Einval)
    }

    /// Sets the parameter; whether the guest may is the hypercall's to decide.
    ///
    /// # Errors
    /// [`Errno::Einval`] when there is no such parameter.
    pub fn set(&mut self, index: u32, value: u64) -> Result<(), Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::Einval)?;
        *self.values.get_mut(index).ok_or(Errno::Einval)? = value;
        Ok(())
    }
}
