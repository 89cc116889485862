//! The proof that the store honours put-if-absent.
//!
//! 1. Create an object of a random name: must succeed.
//! 2. Create it again: must be refused because it exists.
//! 3. Delete it, whatever came out. It is ours alone.
//!
//! No client repeats a conditional put by itself, so a put whose outcome is unknown is repeated here, for some
//! seconds: the start of a worker outlasts a fault that any later step would.
//!
//! `file://` is not probed: exclusive creation is the file system's own.

use std::time::Duration;

use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, path::Path};
use siltstone_protocol::{ErrorCode, ErrorKind};

use super::TableStore;
use crate::error::{LakeError, StoreFault, StoreFaultCode};

const BODY: &[u8] = b"siltstone looks whether this store honours conditional puts\n";
const ATTEMPTS_MAX: u32 = 6;
const PAUSE_FIRST: Duration = Duration::from_millis(200);

pub(super) async fn conditional_put(store: &TableStore) -> Result<(), LakeError> {
    if store.is_local() {
        return Ok(());
    }
    conditional_put_at(store, &uuid::Uuid::new_v4().simple().to_string()).await
}

/// The probe with a chosen object name.
pub(super) async fn conditional_put_at(store: &TableStore, name: &str) -> Result<(), LakeError> {
    let subject = format!("destination {}", store.url);
    let path = store.root.clone().join("_siltstone_probe").join(name);
    match create(store, &path).await {
        Ok(_) => {}
        // A lost reply answers so too: the object is there, which is all the second put needs.
        Err(error) if is_there(&error) => {}
        Err(error) => return Err(at_start(&subject, &error)),
    }
    let second = create(store, &path).await;
    if let Err(error) = store.store.delete(&path).await {
        tracing::warn!(path = %path, fault = %StoreFault::of(&error), "probe object was not deleted");
    }
    match second {
        Err(error) if is_there(&error) => Ok(()),
        Err(error) => Err(at_start(&subject, &error)),
        Ok(_) => Err(LakeError::invalid(
            &subject,
            "the store ignores conditional puts (If-None-Match): two workers could commit the same version, \
             so siltstone would not be safe here; use a store that honours them",
        )
        .coded(ErrorCode::StoreWithoutConditionalPut)),
    }
}

async fn create(store: &TableStore, path: &Path) -> object_store::Result<PutResult> {
    let mut attempt = 1;
    loop {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match store.store.put_opts(path, PutPayload::from_static(BODY), options).await {
            Err(error) if attempt < ATTEMPTS_MAX && is_passing(&error) => {
                tokio::time::sleep(PAUSE_FIRST * 2_u32.pow(attempt - 1)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// Whether the same put may be answered otherwise a moment later.
fn is_passing(error: &object_store::Error) -> bool {
    !is_there(error) && matches!(at_start("", error), LakeError::Store { .. })
}

fn is_there(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

/// At the start a refusal is a setting to change, not something to wait for.
fn at_start(subject: &str, error: &object_store::Error) -> LakeError {
    let fault = StoreFault::of(error);
    if fault.status == Some(501) {
        return LakeError::invalid(
            subject,
            "the store does not implement conditional puts (If-None-Match), without which two workers could \
             commit the same version; use a store that honours them",
        )
        .coded(ErrorCode::StoreWithoutConditionalPut);
    }
    let refused = matches!(
        fault.code,
        StoreFaultCode::NotFound | StoreFaultCode::PermissionDenied | StoreFaultCode::Unauthenticated
    );
    // Any other answer of the 400s says that the request is wrong, but for the two that ask to wait.
    let refused = refused
        || fault.status.is_some_and(|status| (400..500).contains(&status) && ![408, 429].contains(&status));
    if refused || fault.kind() == ErrorKind::Invalid {
        let code = match fault.error_code() {
            // What says no more than that the request is wrong.
            ErrorCode::StoreUnavailable => ErrorCode::StoreSettingRefused,
            code => code,
        };
        return LakeError::invalid(subject, format_args!("a probe object cannot be written: {fault}"))
            .coded(code);
    }
    LakeError::Store { operation: "probe", path: subject.to_owned(), fault }
}
