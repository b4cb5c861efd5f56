//! sparklet
