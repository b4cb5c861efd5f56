//! Object stores by URL, made when first asked for.
//!
//! `s3://`, `gs://`, `az://` (and their long forms) and `http(s)://` are configured from the environment, as the vendors' own
//! tools are (`AWS_…`, `GOOGLE_…`, `AZURE_…`), and from the `storage` options of a source, which win.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use object_store::parse_url_opts;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// A registry that builds a missing store from the environment.
#[derive(Debug, Default)]
pub(crate) struct LazyStores {
    known: DefaultObjectStoreRegistry,
}

impl ObjectStoreRegistry for LazyStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.known.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        self.known.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        self.known.get_store(url).or_else(|missing| {
            if !is_remote(url) {
                return Err(missing);
            }
            let store = build(url, &BTreeMap::new()).map_err(|e| DataFusionError::External(Box::new(e)))?;
            self.known.register_store(url, Arc::clone(&store));
            Ok(store)
        })
    }
}

/// True for URLs of object stores and web servers.
pub fn is_remote(url: &Url) -> bool {
    matches!(url.scheme(), "s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss" | "http" | "https")
}

/// The store that serves `url`, with `options` over the environment.
pub(crate) fn build(url: &Url, options: &BTreeMap<String, String>) -> Result<Arc<dyn ObjectStore>> {
    let from_environment = std::env::vars_os().filter_map(|(key, value)| {
        let (key, value) = (key.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?);
        ["aws_", "google_", "azure_"].iter().any(|p| key.starts_with(p)).then_some((key, value))
    });
    let given = options.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.clone()));
    // Who writes `http:` means it; the clients of the vendors' stores ask for it by name.
    let plain = (url.scheme() == "http").then(|| ("allow_http".to_owned(), "true".to_owned()));
    let (store, _) = parse_url_opts(url, from_environment.chain(plain).chain(given)).map_err(|e| {
        Error::new(ErrorKind::Source, format!("no object store for `{url}`: {e}"))
            .with_hint("set the store's options in `storage = { … }` or in the environment (e.g. `AWS_REGION`)")
    })?;
    Ok(Arc::from(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_made_on_demand_and_kept() {
        let stores = LazyStores::default();
        let url = Url::parse("http://localhost:1/x.parquet").unwrap();
        let first = stores.get_store(&url).unwrap();
        let again = stores.get_store(&Url::parse("http://localhost:1/other").unwrap()).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(stores.get_store(&Url::parse("weird://x/").unwrap()).is_err());
    }
}
