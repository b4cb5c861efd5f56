//! sparklet-optimizer
