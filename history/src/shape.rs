//! What of an operator decides its cost, apart from the rows that go through it.

use serde::{Deserialize, Serialize};

/// Operators that work alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorClass {
    /// Reads Parquet files.
    ParquetScan,
    /// Reads files of text or rows: CSV, JSON, Avro, Arrow.
    FileScan,
    /// Gives rows that are in memory.
    MemoryScan,
    /// Leaves rows out.
    Filter,
    /// Computes columns.
    Projection,
    /// Joins by a hash table, partition by partition.
    PartitionedJoin,
    /// Joins by one hash table for all partitions.
    BroadcastJoin,
    /// Joins sorted inputs.
    SortMergeJoin,
    /// Joins by looking at all pairs.
    NestedLoopJoin,
    /// Joins two exchanges as many small joins.
    ExchangeJoin,
    /// Groups within its partition, to be grouped again.
    PartialAggregate,
    /// Puts groups of partitions together.
    FinalAggregate,
    /// Groups at once.
    SingleAggregate,
    /// Sorts.
    Sort,
    /// Keeps the first rows of an order.
    TopK,
    /// Merges sorted partitions.
    Merge,
    /// Window functions.
    Window,
    /// Distributes rows by a hash.
    HashRepartition,
    /// Distributes batches.
    RoundRobin,
    /// Puts batches or partitions together.
    Coalesce,
    /// Stops after so many rows.
    Limit,
    /// Inputs one after the other.
    Union,
    /// Reads an exchange.
    Exchange,
    /// Writes files.
    Write,
    /// Anything else.
    #[default]
    #[serde(other)]
    Other,
}

impl OperatorClass {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::ParquetScan,
        Self::FileScan,
        Self::MemoryScan,
        Self::Filter,
        Self::Projection,
        Self::PartitionedJoin,
        Self::BroadcastJoin,
        Self::SortMergeJoin,
        Self::NestedLoopJoin,
        Self::ExchangeJoin,
        Self::PartialAggregate,
        Self::FinalAggregate,
        Self::SingleAggregate,
        Self::Sort,
        Self::TopK,
        Self::Merge,
        Self::Window,
        Self::HashRepartition,
        Self::RoundRobin,
        Self::Coalesce,
        Self::Limit,
        Self::Union,
        Self::Exchange,
        Self::Write,
        Self::Other,
    ];

    /// As records and model files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ParquetScan => "parquet_scan",
            Self::FileScan => "file_scan",
            Self::MemoryScan => "memory_scan",
            Self::Filter => "filter",
            Self::Projection => "projection",
            Self::PartitionedJoin => "partitioned_join",
            Self::BroadcastJoin => "broadcast_join",
            Self::SortMergeJoin => "sort_merge_join",
            Self::NestedLoopJoin => "nested_loop_join",
            Self::ExchangeJoin => "exchange_join",
            Self::PartialAggregate => "partial_aggregate",
            Self::FinalAggregate => "final_aggregate",
            Self::SingleAggregate => "single_aggregate",
            Self::Sort => "sort",
            Self::TopK => "top_k",
            Self::Merge => "merge",
            Self::Window => "window",
            Self::HashRepartition => "hash_repartition",
            Self::RoundRobin => "round_robin",
            Self::Coalesce => "coalesce",
            Self::Limit => "limit",
            Self::Union => "union",
            Self::Exchange => "exchange",
            Self::Write => "write",
            Self::Other => "other",
        }
    }
}

/// What of an operator decides its cost, apart from the rows that go through it: known before it runs, the same whenever it is planned so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorShape {
    /// What it does.
    pub class: OperatorClass,
    /// Columns out.
    pub columns: u16,
    /// Bytes of a row out in memory, by the types of its columns.
    pub width: f32,
    /// Columns out of strings, binaries or lists.
    pub strings: u16,
    /// Columns that it joins, groups, sorts, distributes or partitions by.
    pub keys: u16,
    /// Bytes of these, by type.
    pub key_width: f32,
    /// Keys of strings, binaries or lists.
    pub key_strings: u16,
    /// Functions that it aggregates by, window functions, or columns that it computes.
    pub functions: u16,
    /// Cost of its expressions for one row, in additions of two numbers.
    pub expression_cost: f32,
    /// Partitions out.
    pub partitions: u32,
    /// Rows after which it stops.
    pub fetch: Option<u64>,
    /// Scans: rows of the files, where the files tell.
    pub stored_rows: Option<u64>,
    /// Scans: bytes of the files, for the columns that are read.
    pub stored_bytes: Option<u64>,
    /// Scans: columns are read late, for rows that pass a filter.
    pub late: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_written_by_name_and_unknown_ones_are_read() {
        for (number, class) in OperatorClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, number);
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("\"{}\"", class.name()));
        }
        let later: OperatorShape = serde_json::from_str(r#"{"class":"of_a_later_build","columns":3}"#).unwrap();
        assert_eq!((later.class, later.columns), (OperatorClass::Other, 3));
    }
}
