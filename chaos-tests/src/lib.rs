//! Faults against real processes, and the independent count that every answer is compared with, share no code with the product ([`process`], [`oracle`]).
//! Replicas in a simulated world run its code unchanged ([`sim`]).

pub mod fleet;
pub mod oracle;
pub mod process;
#[cfg(feature = "sim")]
pub mod sim;
