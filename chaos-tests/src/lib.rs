//! Faults against real processes, and the independent count that every answer is compared with. Nothing here shares code with the product.

pub mod fleet;
pub mod oracle;
pub mod process;
