//! The types of udf-sdk/wit/udf.wit.

use wasmtime::component::{ComponentType, Lift, Lower};

/// Texts or binaries.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Bytes {
    pub(super) offsets: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// Values of one node.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum Values {
    #[component(name = "booleans")]
    Booleans(Vec<u8>),
    #[component(name = "int8")]
    Int8(Vec<u8>),
    #[component(name = "int16")]
    Int16(Vec<u8>),
    #[component(name = "int32")]
    Int32(Vec<u8>),
    #[component(name = "int64")]
    Int64(Vec<u8>),
    #[component(name = "uint8")]
    Uint8(Vec<u8>),
    #[component(name = "uint16")]
    Uint16(Vec<u8>),
    #[component(name = "uint32")]
    Uint32(Vec<u8>),
    #[component(name = "uint64")]
    Uint64(Vec<u8>),
    #[component(name = "float32")]
    Float32(Vec<u8>),
    #[component(name = "float64")]
    Float64(Vec<u8>),
    #[component(name = "bytes")]
    Bytes(Bytes),
    #[component(name = "decimals")]
    Decimals(Vec<u8>),
    #[component(name = "lists")]
    Lists(Vec<u8>),
    #[component(name = "structs")]
    Structs(u32),
}

impl Values {
    /// Name of the case.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Booleans(_) => "booleans",
            Self::Int8(_) => "int8",
            Self::Int16(_) => "int16",
            Self::Int32(_) => "int32",
            Self::Int64(_) => "int64",
            Self::Uint8(_) => "uint8",
            Self::Uint16(_) => "uint16",
            Self::Uint32(_) => "uint32",
            Self::Uint64(_) => "uint64",
            Self::Float32(_) => "float32",
            Self::Float64(_) => "float64",
            Self::Bytes(_) => "bytes",
            Self::Decimals(_) => "decimals",
            Self::Lists(_) => "lists",
            Self::Structs(_) => "structs",
        }
    }
}

/// Values with their NULLs.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Node {
    pub(super) values: Values,
    pub(super) validity: Vec<u8>,
}

/// A column: nodes depth first.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Column {
    pub(super) nodes: Vec<Node>,
    pub(super) constant: bool,
}

/// Rows of a table.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Rows {
    pub(super) count: u32,
    pub(super) columns: Vec<Column>,
}

/// An error of the guest's own.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) row: Option<u32>,
}
