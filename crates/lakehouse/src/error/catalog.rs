//! Why an Iceberg REST catalog did not do what it was asked, as closed codes with what to do next.

use std::fmt;

use siltstone_protocol::{ErrorCode, ErrorKind};

/// A refusal or a failure. No text of the catalog's own is kept, but the type that its answer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFault {
    pub code: CatalogFaultCode,
    /// HTTP status.
    pub status: Option<u16>,
    /// The error's type, a plain word such as `NoSuchTableException`.
    pub kind: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogFaultCode {
    /// No connection: the request was not sent.
    Unreachable,
    /// The connection broke off.
    Broken,
    Timeout,
    /// 401.
    Unauthenticated,
    /// 403.
    Forbidden,
    /// The token endpoint refused the client.
    TokenRefused,
    NoTokenEndpoint,
    /// No AWS credentials to sign with.
    NoCredentials,
    /// 404 below the catalog's prefix.
    NotFound,
    /// The configuration endpoint is not there, or is none.
    NoCatalog,
    /// 409.
    Conflict,
    /// 429.
    Busy,
    /// Another 4xx.
    Refused,
    /// 5xx.
    Failed,
    /// The answer is not what the protocol says.
    Unreadable,
    TooLarge,
    /// The catalog hands out no credentials for the table's files.
    NothingVended,
}

impl CatalogFault {
    pub(crate) fn of(code: CatalogFaultCode) -> Self {
        Self { code, status: None, kind: None }
    }

    /// A transport's failure; its text may quote the address and is dropped.
    pub(crate) fn transport(error: &reqwest::Error) -> Self {
        Self::of(match () {
            () if error.is_connect() => CatalogFaultCode::Unreachable,
            () if error.is_timeout() => CatalogFaultCode::Timeout,
            () => CatalogFaultCode::Broken,
        })
    }

    /// True when a change that was asked for may have been made all the same.
    pub(crate) fn is_doubtful(&self) -> bool {
        use CatalogFaultCode as Code;
        matches!(
            self.code,
            Code::Unreachable
                | Code::Broken
                | Code::Timeout
                | Code::Failed
                | Code::Unreadable
                | Code::TooLarge
        )
    }

    /// True when the same request may succeed a little later.
    pub(crate) fn passes(&self) -> bool {
        use CatalogFaultCode as Code;
        matches!(self.code, Code::Unreachable | Code::Broken | Code::Timeout | Code::Failed | Code::Busy)
            && self.status != Some(501)
    }

    /// True when a person must change something. Refused credentials are often renewed under a running worker, so
    /// only the look at the start takes them for that.
    pub fn is_refusal(&self) -> bool {
        use CatalogFaultCode as Code;
        self.kind() == ErrorKind::Invalid
            || matches!(
                self.code,
                Code::Unauthenticated | Code::Forbidden | Code::TokenRefused | Code::NoCredentials
            )
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        use CatalogFaultCode as Code;
        match self.code {
            Code::NoTokenEndpoint
            | Code::NotFound
            | Code::NoCatalog
            | Code::Refused
            | Code::NothingVended => ErrorKind::Invalid,
            Code::Conflict => ErrorKind::Conflict,
            _ if self.status == Some(501) => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        }
    }

    /// What to look up.
    pub fn error_code(&self) -> ErrorCode {
        use CatalogFaultCode as Code;
        match self.code {
            Code::Unreachable | Code::Broken | Code::Timeout | Code::Busy | Code::Failed => {
                ErrorCode::CatalogUnavailable
            }
            Code::Unauthenticated | Code::Forbidden | Code::TokenRefused | Code::NoCredentials => {
                ErrorCode::CatalogAccessRefused
            }
            Code::NoTokenEndpoint
            | Code::NotFound
            | Code::NoCatalog
            | Code::Refused
            | Code::Unreadable
            | Code::TooLarge
            | Code::NothingVended => ErrorCode::CatalogSettingRefused,
            Code::Conflict => ErrorCode::CommitConflict,
        }
    }
}

impl fmt::Display for CatalogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CatalogFaultCode as Code;
        f.write_str(match self.code {
            Code::Unreachable => "no connection; check uri, and that the catalog runs",
            Code::Broken => "the connection broke off",
            Code::Timeout => "no answer in time",
            Code::Unauthenticated => "the credentials are missing or refused; check the catalog's token, oauth2 or sigv4",
            Code::Forbidden => "the credentials do not allow this; grant them to create, read and commit to the table",
            Code::TokenRefused => "the token endpoint refuses the client; check oauth2.client_id, client_secret and scope",
            Code::NoTokenEndpoint => "there is no token endpoint there; set oauth2.token_url",
            Code::NoCredentials => "no AWS credentials are found to sign with; set them in the environment",
            Code::NotFound => "not found; check warehouse, prefix and namespace",
            Code::NoCatalog => "no Iceberg REST catalog answers there, or none with this warehouse; check uri and warehouse",
            Code::Conflict => "others changed it first",
            Code::Busy => "the catalog asks to wait",
            Code::Refused => "the catalog refuses the request",
            Code::Failed => "the catalog failed",
            Code::Unreadable => "the answer is not what the Iceberg REST protocol says; check uri",
            Code::TooLarge => "the answer is larger than can be read; let snapshots expire sooner",
            Code::NothingVended => {
                "the catalog hands out no s3 credentials for the table; set vended_credentials to false, and give the \
                 credentials by the environment"
            }
        })?;
        match (self.status, &self.kind) {
            (Some(status), Some(kind)) => write!(f, " (HTTP {status}, {kind})"),
            (Some(status), None) => write!(f, " (HTTP {status})"),
            (None, _) => Ok(()),
        }
    }
}
