//! sparklet-cli
