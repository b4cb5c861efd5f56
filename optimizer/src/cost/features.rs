//! What a cost model sees of a plan: before it runs with expected rows, and in a record with those that came.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::{Fingerprint, OperatorClass, OperatorShape, PlanRecord};

use super::shape::shape;

/// An operator as a cost model sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperatorFeatures {
    /// What it is.
    pub shape: OperatorShape,
    /// Rows in: of the first input, and of all others. A scan's are the rows of its files.
    pub rows_in: [f64; 2],
    /// Bytes of a row in memory of the same inputs.
    pub width_in: [f64; 2],
    /// Rows out.
    pub rows_out: f64,
    /// Bytes that it spilled; nothing where it has not run.
    pub spilled_bytes: f64,
    /// Names its work among all plans of a pipeline, whatever literals they have: the same in a plan to be run and in a record.
    pub key: Option<u64>,
}

/// A plan as a cost model sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanFeatures {
    /// Operators in pre-order.
    pub operators: Vec<OperatorFeatures>,
    /// Slots that it runs on.
    pub slots: u32,
    parents: Vec<Option<u32>>,
}

/// Features of a plan that is to be run on `slots`: `rows` gives the rows that a node is expected to put out, by its position in
/// pre-order. Where it does not know, a node's rows are taken from its inputs.
///
/// Give the templates of its nodes with [`PlanFeatures::identify`], so that a model that knows their past can use it.
pub fn features(plan: &Arc<dyn ExecutionPlan>, slots: usize, rows: &dyn Fn(usize) -> Option<f64>) -> PlanFeatures {
    let mut features = PlanFeatures { slots: u32::try_from(slots).unwrap_or(u32::MAX), ..PlanFeatures::default() };
    walk(plan, None, &mut features);
    features.at_rows(rows)
}

#[recursive::recursive]
fn walk(plan: &Arc<dyn ExecutionPlan>, parent: Option<u32>, features: &mut PlanFeatures) {
    let own = features.operators.len();
    features.operators.push(OperatorFeatures { shape: shape(plan.as_ref()), ..OperatorFeatures::default() });
    features.parents.push(parent);
    for child in plan.children() {
        walk(child, u32::try_from(own).ok(), features);
    }
}

/// Features of a plan that has run, with the rows that came; none if its record has no shapes, as those of builds before cost models.
pub fn recorded(plan: &PlanRecord, slots: u32) -> Option<PlanFeatures> {
    if plan.nodes.is_empty() {
        return None;
    }
    let mut features = PlanFeatures { slots, ..PlanFeatures::default() };
    for node in &plan.nodes {
        features.operators.push(OperatorFeatures {
            shape: node.shape.clone()?,
            spilled_bytes: node.spilled_bytes as f64,
            ..OperatorFeatures::default()
        });
        features.parents.push(node.parent);
    }
    let rows: Vec<Option<f64>> = plan.nodes.iter().map(|node| node.rows.map(|rows| rows as f64)).collect();
    features.connect(&rows);
    features.identify(plan.nodes.iter().map(|node| node.template));
    Some(features)
}

impl PlanFeatures {
    /// Parents of the operators; none for the root.
    pub fn parents(&self) -> &[Option<u32>] {
        &self.parents
    }

    /// The same plan at other rows, as [`features`] takes them.
    pub fn at_rows(&self, rows: &dyn Fn(usize) -> Option<f64>) -> Self {
        let bare = |of: &OperatorFeatures| OperatorFeatures {
            shape: of.shape.clone(),
            key: of.key,
            ..OperatorFeatures::default()
        };
        let operators = self.operators.iter().map(bare).collect();
        let mut features = Self { operators, slots: self.slots, parents: self.parents.clone() };
        let known: Vec<Option<f64>> = (0..features.operators.len()).map(rows).collect();
        features.connect(&known);
        features
    }

    /// The same plan without the work of some operators, by position: what stands there was computed before, and is read.
    pub(crate) fn without(mut self, computed: &[bool], rows: &dyn Fn(usize) -> Option<f64>) -> Self {
        for (operator, _) in self.operators.iter_mut().zip(computed).filter(|(_, computed)| **computed) {
            operator.shape = OperatorShape { width: operator.shape.width, ..OperatorShape::default() };
        }
        self.at_rows(rows)
    }

    /// Names the plan as a whole: the same where all operators are the same, in the same order. None where one has no name.
    pub fn key(&self) -> Option<u64> {
        let mut hash = Fnv::new();
        for operator in &self.operators {
            hash.add(&operator.key?.to_le_bytes());
        }
        Some(hash.0)
    }

    /// Names the operators by the templates of their subplans, in pre-order, as `fingerprint_physical` gives them. An operator without
    /// one is named by its inputs.
    pub fn identify(&mut self, templates: impl IntoIterator<Item = Option<Fingerprint>>) {
        let templates: Vec<Option<Fingerprint>> = templates.into_iter().collect();
        let mut below: Vec<Vec<Option<u64>>> = vec![Vec::new(); self.operators.len()];
        for at in (0..self.operators.len()).rev() {
            let mut hash = Fnv::new();
            let shape = &self.operators[at].shape;
            hash.add(shape.class.name().as_bytes());
            hash.add(&[u8::from(shape.fetch.is_some()), u8::from(shape.late)]);
            let inputs = std::mem::take(&mut below[at]);
            let key = match templates.get(at).copied().flatten() {
                Some(Fingerprint(template)) => {
                    hash.add(&template);
                    // Which side a join builds is no part of its template.
                    if inputs.len() > 1
                        && let Some(Some(build)) = inputs.last()
                    {
                        hash.add(&build.to_le_bytes());
                    }
                    Some(hash.0)
                }
                None if inputs.is_empty() => None,
                None => inputs
                    .iter()
                    .rev()
                    .try_fold(hash, |mut hash, input| {
                        hash.add(&(*input)?.to_le_bytes());
                        Some(hash)
                    })
                    .map(|hash| hash.0),
            };
            self.operators[at].key = key;
            if let Some(parent) = self.parents[at].and_then(|parent| below.get_mut(parent as usize)) {
                parent.push(key);
            }
        }
    }

    /// Fills in the rows, from below: a node of unknown rows puts out as many as come in, a scan as many as its files have.
    fn connect(&mut self, known: &[Option<f64>]) {
        for at in (0..self.operators.len()).rev() {
            let operator = &mut self.operators[at];
            if let Some(stored) = operator.shape.stored_rows {
                operator.rows_in[0] = stored as f64;
            }
            // Children were visited from the last to the first, each adding to the second input; the first is set last.
            let passed = match operator.shape.class {
                OperatorClass::Union => operator.rows_in.iter().sum(),
                _ => operator.rows_in[0].max(operator.rows_in[1]),
            };
            let most = operator.shape.fetch.map_or(f64::INFINITY, |fetch| fetch as f64);
            let rows = known.get(at).copied().flatten().unwrap_or_else(|| passed.min(most)).max(0.0);
            operator.rows_out = rows;
            if operator.shape.stored_bytes.is_some() && operator.shape.stored_rows.is_none() {
                operator.rows_in[0] = rows;
            }
            let width = f64::from(operator.shape.width);
            let Some(parent) = self.parents[at].map(|parent| parent as usize) else { continue };
            let side = usize::from(parent + 1 != at);
            if let Some(parent) = self.operators.get_mut(parent) {
                let (before, added) = (parent.rows_in[side], rows);
                let sum = before + added;
                // The mean over several inputs.
                parent.width_in[side] = match sum > 0.0 {
                    true => (parent.width_in[side] * before + width * added) / sum,
                    false => width,
                };
                parent.rows_in[side] = sum;
            }
        }
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every build.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
