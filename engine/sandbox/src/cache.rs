//! Compiled modules on disk. Machine code runs as it is, so only files that this engine wrote are read: each begins with a hash over its
//! name and content, keyed by a secret that lies beside them with rights for its owner alone.

use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files that are kept; the oldest go first.
const MAX_FILES: usize = 200;

const SECRET: &str = "secret";
const ENDING: &str = "cwasm";
const MAC: usize = 32;

/// See the module.
pub(crate) struct Cache {
    folder: PathBuf,
    secret: [u8; 32],
}

impl Cache {
    /// The cache in `folder`; none where it cannot be made or others could read its secret.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).ok()?;
        let secret = secret(&folder.join(SECRET)).inspect_err(|error| {
            tracing::warn!(%error, folder = %folder.display(), "compiled modules are not kept");
        });
        Some(Self { folder: folder.to_owned(), secret: secret.ok()? })
    }

    /// Name for what `engine` makes of the module with this SHA-256: version, settings and CPU features are in it.
    pub(crate) fn name(module: &[u8; 32], engine: &wasmtime::Engine, kind: &str) -> String {
        let mut hasher = Blake(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(module).update(kind.as_bytes());
        // The same for code that depends on what the CPU can do.
        hasher.0.update(std::env::consts::ARCH.as_bytes()).update(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.0.finalize().to_hex().to_string()
    }

    /// What was written under `name`, if it is whole and ours. What is not is removed.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        let mut bytes = std::fs::read(&path).ok()?;
        let whole = bytes.len() > MAC && {
            let told: [u8; MAC] = bytes[..MAC].try_into().ok()?;
            // Compares in constant time.
            self.mac(name, &bytes[MAC..]) == blake3::Hash::from_bytes(told)
        };
        if !whole {
            tracing::warn!(file = %path.display(), "a compiled module is damaged or not ours: it is compiled again");
            // It is written anew in a moment.
            let _ = std::fs::remove_file(&path);
            return None;
        }
        bytes.drain(..MAC);
        Some(bytes)
    }

    /// Keeps `artifact` under `name`: whole or not at all.
    pub(crate) fn write(&self, name: &str, artifact: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(self.mac(name, artifact).as_bytes())?;
        file.write_all(artifact)?;
        file.persist(self.path(name)).map_err(|e| e.error)?;
        self.prune()
    }

    fn prune(&self) -> std::io::Result<()> {
        let mut files: Vec<_> = std::fs::read_dir(&self.folder)?
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|e| e == ENDING))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(MAX_FILES);
        files.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
    }

    fn mac(&self, name: &str, artifact: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(name.as_bytes()).update(artifact);
        hasher.finalize()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ENDING}"))
    }
}

/// The secret in `path`; drawn where there is none.
fn secret(path: &Path) -> std::io::Result<[u8; 32]> {
    let drawn: [u8; 32] = rand::random();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            file.write_all(&drawn)?;
            return Ok(drawn);
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let found = std::fs::metadata(path)?;
        let mine = found.uid() == rustix::process::geteuid().as_raw();
        if !mine || found.permissions().mode() & 0o077 != 0 {
            return Err(std::io::Error::other("the secret of the cache can be read or written by others"));
        }
    }
    let bytes = std::fs::read(path)?;
    bytes.try_into().map_err(|_| std::io::Error::other("the secret of the cache is damaged: remove the folder"))
}

/// A hash of many bits from what implements [`Hash`].
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        cache.write("a", b"code of a").unwrap();
        cache.write("b", b"code of b").unwrap();
        assert_eq!(cache.read("a").as_deref(), Some(&b"code of a"[..]));
        assert_eq!(Cache::open(folder.path()).unwrap().read("b").as_deref(), Some(&b"code of b"[..]));
        // Swapped, cut, changed, foreign.
        std::fs::copy(cache.path("b"), cache.path("a")).unwrap();
        assert_eq!(cache.read("a"), None);
        assert!(!cache.path("a").exists());
        let whole = std::fs::read(cache.path("b")).unwrap();
        for damaged in
            [whole[..20].to_vec(), whole[..whole.len() - 1].to_vec(), [whole.clone(), b"x".to_vec()].concat()]
        {
            std::fs::write(cache.path("b"), damaged).unwrap();
            assert_eq!(cache.read("b"), None);
        }
        let other = tempfile::tempdir().unwrap();
        let foreign = Cache::open(other.path()).unwrap();
        foreign.write("c", b"code").unwrap();
        std::fs::copy(foreign.path("c"), cache.path("c")).unwrap();
        assert_eq!(cache.read("c"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        assert!(Cache::open(folder.path()).is_some());
        std::fs::set_permissions(folder.path().join(SECRET), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Cache::open(folder.path()).is_none());
    }
}
