//! Publishing to an object store: one file, which its readers see when the upload is complete and not before.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use sparklet_core::{Error, ErrorKind, Result, Session};
use tokio::io::AsyncReadExt;
use url::Url;

/// Bytes in one part of an upload; stores allow 5 MiB or more and at most 10,000 parts.
const PART_BYTES: usize = 16 << 20;

/// Parts that are under way at the same time.
const PARTS_AT_ONCE: usize = 4;

/// Uploads `file` to `url`. When `stop` comes first, the parts so far are given up and its error is returned.
pub(crate) async fn upload(session: &Session, file: &Path, url: &str, stop: impl Future<Output = Error>) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Output, format!("cannot publish `{url}`: {e}"))
            .with_hint("check the address, the credentials and the network; what was published before is untouched")
    };
    let parsed = Url::parse(url).map_err(|e| failed(&e))?;
    let store = session.context().runtime_env().object_store_registry.get_store(&parsed).map_err(|e| failed(&e))?;
    let path = StorePath::from_url_path(parsed.path()).map_err(|e| failed(&e))?;
    upload_to(&store, &path, file, stop).await.map_err(|error| match error {
        UploadError::Stopped(error) => error,
        UploadError::File(error) => super::unwritable(file, "cannot read the staged file", &error),
        UploadError::Store(error) => failed(&error),
    })
}

enum UploadError {
    Stopped(Error),
    File(std::io::Error),
    Store(object_store::Error),
}

async fn upload_to(
    store: &Arc<dyn ObjectStore>,
    path: &StorePath,
    file: &Path,
    stop: impl Future<Output = Error>,
) -> std::result::Result<(), UploadError> {
    let mut file = tokio::fs::File::open(file).await.map_err(UploadError::File)?;
    let length = file.metadata().await.map_err(UploadError::File)?.len();
    tokio::pin!(stop);
    if length <= PART_BYTES as u64 {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await.map_err(UploadError::File)?;
        return tokio::select! {
            biased;
            error = &mut stop => Err(UploadError::Stopped(error)),
            put = store.put(path, PutPayload::from(bytes)) => put.map(drop).map_err(UploadError::Store),
        };
    }
    let upload = store.put_multipart(path).await.map_err(UploadError::Store)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = tokio::select! {
            biased;
            error = &mut stop => Err(UploadError::Stopped(error)),
            read = async {
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(UploadError::Store)?;
                file.read(&mut buffer).await.map_err(UploadError::File)
            } => read,
        };
        match read {
            Ok(0) => break,
            Ok(n) => upload.write(&buffer[..n]),
            Err(error) => {
                // Parts of an upload that is never completed cost money on some stores until they are told.
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "an unfinished upload may be left in the store");
                }
                return Err(error);
            }
        }
    }
    // The store makes the object visible here, at once; not to be interrupted half-way.
    upload.finish().await.map(drop).map_err(UploadError::Store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    async fn upload_bytes(store: &Arc<dyn ObjectStore>, bytes: &[u8], stop: impl Future<Output = Error>) -> bool {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        upload_to(store, &StorePath::from("a/b.parquet"), file.path(), stop).await.is_ok()
    }

    #[tokio::test]
    async fn small_and_large_files_arrive_whole() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for length in [0, 10, PART_BYTES, PART_BYTES * 2 + 12_345] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            assert!(upload_bytes(&store, &bytes, std::future::pending()).await);
            let there = store.get(&StorePath::from("a/b.parquet")).await.unwrap().bytes().await.unwrap();
            assert!(there == bytes, "{length}");
        }
    }

    #[tokio::test]
    async fn a_stopped_upload_leaves_the_old_object() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        assert!(upload_bytes(&store, b"old", std::future::pending()).await);
        for length in [10, PART_BYTES * 2] {
            let stop = async { Error::new(ErrorKind::Cancelled, "stop") };
            assert!(!upload_bytes(&store, &vec![1; length], stop).await);
            let there = store.get(&StorePath::from("a/b.parquet")).await.unwrap().bytes().await.unwrap();
            assert_eq!(there.as_ref(), b"old");
        }
    }
}
