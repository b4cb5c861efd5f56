//! sparklet-report
