//! Which instruction sets the processor has, and how a kernel runs with one of them.

#[cfg(any(target_arch = "aarch64", all(target_arch = "arm", target_abi = "eabihf")))]
use super::neon::{self, Neon};
use super::{Kernel, Simd, portable::Portable};
#[cfg(target_arch = "x86_64")]
use super::{
    avx2::{self, Avx2},
    avx512::{self, Avx512},
};

/// An instruction set that this processor has. [`Isa::best`] and [`Isa::available`] are the only ways to get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(pub(crate) Set);

/// An instruction set of this architecture. The processor may lack it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Set {
    /// Arrays, vectorised by the compiler.
    Portable,
    #[cfg(any(target_arch = "aarch64", all(target_arch = "arm", target_abi = "eabihf")))]
    Neon,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest one of this processor.
    pub fn best() -> Isa {
        *Isa::available().last().expect("the portable one is always there")
    }

    /// All instruction sets of this processor, narrowest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut, reason = "some architectures have the portable one alone")]
        let mut available = vec![Isa(Set::Portable)];
        #[cfg(target_arch = "aarch64")]
        available.push(Isa(Set::Neon));
        #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
        if neon::is_there() {
            available.push(Isa(Set::Neon));
        }
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                available.push(Isa(Set::Avx2));
            }
            if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                available.push(Isa(Set::Avx512));
            }
        }
        available
    }

    pub fn name(self) -> &'static str {
        self.facts().0
    }

    pub fn lanes(self) -> usize {
        self.facts().1
    }

    /// Vector registers.
    pub fn registers(self) -> usize {
        self.facts().2
    }

    /// Name, lanes and registers.
    fn facts(self) -> (&'static str, usize, usize) {
        match self.0 {
            Set::Portable => ("portable", Portable::LANES, Portable::REGISTERS),
            #[cfg(any(target_arch = "aarch64", all(target_arch = "arm", target_abi = "eabihf")))]
            Set::Neon => ("neon", Neon::LANES, Neon::REGISTERS),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => ("avx2", Avx2::LANES, Avx2::REGISTERS),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => ("avx512", Avx512::LANES, Avx512::REGISTERS),
        }
    }

    /// Runs `kernel` with this instruction set's vectors.
    ///
    /// # Safety
    /// The preconditions of `kernel` hold.
    #[inline]
    pub unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Portable => kernel.run::<Portable>(),
            #[cfg(any(target_arch = "aarch64", all(target_arch = "arm", target_abi = "eabihf")))]
            Set::Neon => neon::run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => avx2::run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => avx512::run(kernel),
        }
    }
}
