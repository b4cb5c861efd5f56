//! What is around a plan in bytes: what they are, of which version, whole or not.
//!
//! `sparkpln`, the version (u32, little endian), BLAKE3 of all that follows, the length of a head (u32), the head in JSON, the modules of user
//! functions, the plan.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"sparkpln";

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// What sort of plan it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Logical,
    Physical,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// DataFusion's version: its plans in bytes are read by the same version only.
    datafusion: String,
    kind: Kind,
    modules: u64,
    plan: u64,
}

/// A plan in bytes, and the modules of its functions.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) kind: Kind,
    pub(super) modules: &'a [u8],
    pub(super) plan: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let head = Head {
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            kind: self.kind,
            modules: self.modules.len() as u64,
            plan: self.plan.len() as u64,
        };
        let internal = |why: String| Error::new(ErrorKind::Internal, format!("the plan cannot be written: {why}"));
        let head = serde_json::to_vec(&head).map_err(|e| internal(e.to_string()))?;
        let length = u32::try_from(head.len()).map_err(|e| internal(e.to_string()))?.to_le_bytes();
        let parts: [&[u8]; 4] = [&length, &head, self.modules, self.plan];
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        let hash = *hasher.finalize().as_bytes();
        Ok([[MAGIC.as_slice(), &VERSION.to_le_bytes(), &hash].as_slice(), &parts].concat().concat())
    }

    pub(super) fn read(bytes: &'a [u8], wanted: Kind) -> Result<Self> {
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| wrong("these bytes are no plan of sparklet"))?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(wrong(format!("the plan is of version {version}, this engine reads version {VERSION}"))
                .with_hint("send plans between engines of the same version"));
        }
        let (hash, rest) = rest.split_first_chunk::<32>().ok_or_else(short)?;
        if blake3::hash(rest) != *hash {
            return Err(
                wrong("the plan is damaged: its checksum is another").with_hint("send it again, whole and in binary")
            );
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (head, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
        let head: Head = serde_json::from_slice(head).map_err(|e| wrong(format!("the plan is damaged: {e}")))?;
        if head.datafusion != datafusion::DATAFUSION_VERSION {
            let theirs: String = head.datafusion.chars().take(20).collect();
            return Err(wrong(format!(
                "the plan is made by DataFusion {}, this engine has {}",
                theirs.escape_debug(),
                datafusion::DATAFUSION_VERSION
            ))
            .with_hint("send plans between engines of the same version"));
        }
        if head.kind != wanted {
            return Err(wrong(match wanted {
                Kind::Logical => "these bytes are a physical plan, a logical one is wanted",
                Kind::Physical => "these bytes are a logical plan, a physical one is wanted",
            })
            .with_hint("`frame_from_bytes` reads a `DataFrame`, `plan_from_bytes` a `PreparedQuery`"));
        }
        let modules = usize::try_from(head.modules).ok().and_then(|at| rest.split_at_checked(at));
        let (modules, plan) = modules.ok_or_else(short)?;
        if plan.len() as u64 != head.plan {
            return Err(wrong(format!("the plan is damaged: {} bytes of {}", plan.len(), head.plan)));
        }
        Ok(Self { kind: wanted, modules, plan })
    }
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Data, message)
}

fn short() -> Error {
    wrong("the plan is damaged: it ends too early").with_hint("send it again, whole")
}
