//! Tells aya that the layouts may be copied to and from maps byte by byte.

#![expect(unsafe_code, reason = "aya's marker trait is unsafe")]

use crate::layout::{
    Flow, Gateway, Origin, Probe, Refusal, Service, ServiceKey, Target, TargetKey, Tuple,
    VerdictKey, Verdicts,
};

macro_rules! pod {
    ($($layout:ident),+ $(,)?) => {
        $(
            // SAFETY: the structure is `repr(C)`, has no implicit padding (its size is asserted
            // beside it), and every bit pattern is a valid value.
            unsafe impl aya::Pod for $layout {}
        )+
    };
}

pod!(
    Flow, Gateway, Origin, Probe, Refusal, Service, ServiceKey, Target, TargetKey, Tuple,
    VerdictKey, Verdicts
);
