//! Names, units, clock, randomness and the failure taxonomy.
