//! Librdkafka's error numbers, mapped to what the caller should do.
//!
//! Only the numbers are used, never the texts that come with them.

use rdkafka::{error::KafkaError, types::RDKafkaRespErr as Code};
use siltstone_protocol::ErrorCode;

use crate::error::IngestError;

/// What an error number asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client goes on by itself.
    Transient,
    /// Wrong credentials or no permission.
    Access,
    /// TLS could not be set up. Before the first success this is a wrong setting, later an accident.
    Tls,
    /// No such topic.
    Topic,
    /// A setting that the broker or the group refuses.
    Setting,
    /// The client is dead.
    Fatal,
}

/// Names what an error is about.
pub(super) struct Place<'a> {
    pub(super) cluster: &'a str,
    pub(super) topic: &'a str,
    pub(super) group: &'a str,
    /// As the spec has them.
    pub(super) brokers: &'a str,
}

pub(super) fn is(code: i32, wanted: Code) -> bool {
    code == wanted as i32
}

fn is_any(code: i32, wanted: &[Code]) -> bool {
    wanted.iter().any(|one| is(code, *one))
}

pub(super) fn classify(code: i32) -> Fault {
    if is_any(
        code,
        &[
            Code::RD_KAFKA_RESP_ERR__AUTHENTICATION,
            Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE,
            Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_SECURITY_DISABLED,
        ],
    ) {
        Fault::Access
    } else if is(code, Code::RD_KAFKA_RESP_ERR__SSL) {
        Fault::Tls
    } else if is_any(
        code,
        &[
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
        ],
    ) {
        Fault::Topic
    } else if is_any(
        code,
        &[
            Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
            Code::RD_KAFKA_RESP_ERR_INVALID_GROUP_ID,
            Code::RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT,
            Code::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL,
            Code::RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED,
            Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_ASSIGNOR,
            Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE,
            Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
        ],
    ) {
        Fault::Setting
    } else if is_any(
        code,
        &[
            Code::RD_KAFKA_RESP_ERR__FATAL,
            Code::RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE,
            Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
            Code::RD_KAFKA_RESP_ERR__DESTROY,
        ],
    ) {
        Fault::Fatal
    } else {
        Fault::Transient
    }
}

/// A closed description of an error number.
pub(super) fn meaning(code: i32) -> &'static str {
    if is(code, Code::RD_KAFKA_RESP_ERR__TRANSPORT) {
        return "connection to a broker failed";
    }
    if is(code, Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        return "no broker can be reached";
    }
    if is(code, Code::RD_KAFKA_RESP_ERR__RESOLVE) {
        return "a broker's name cannot be resolved";
    }
    if is_any(code, &[Code::RD_KAFKA_RESP_ERR__TIMED_OUT, Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT]) {
        return "a request timed out";
    }
    if is(code, Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED) {
        return "the table did not poll for longer than max.poll.interval.ms";
    }
    if is(code, Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
        return "no permission to read the topic";
    }
    if is(code, Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED) {
        return "no permission to use the consumer group";
    }
    match classify(code) {
        Fault::Transient => "temporary failure",
        Fault::Access => "credentials were not accepted",
        Fault::Tls => "TLS could not be set up",
        Fault::Topic => "unknown topic",
        Fault::Setting => "a setting was refused",
        Fault::Fatal => "fatal client error",
    }
}

/// The error number inside a client error; 0 when it has none.
pub(super) fn code_of(error: &KafkaError) -> i32 {
    error.rdkafka_error_code().map_or(0, |code| code as i32)
}

/// The typed error for a number; None when the client goes on by itself. `reached`: brokers answered before.
pub(super) fn error(code: i32, place: &Place<'_>, reached: bool) -> Option<IngestError> {
    let Place { cluster, topic, group, .. } = place;
    let what = format!("cluster {cluster}, topic {topic}");
    let why = format!("{} (librdkafka code {code})", meaning(code));
    Some(match classify(code) {
        Fault::Transient => return None,
        Fault::Tls if reached => IngestError::Unavailable { code: ErrorCode::KafkaUnavailable, what, why },
        Fault::Tls => IngestError::Refused {
            code: ErrorCode::KafkaTlsFailed,
            what,
            why,
            check: "check tls.ca_file, tls.cert_file, tls.key_file, and that the listener speaks TLS"
                .to_owned(),
        },
        Fault::Access => IngestError::Refused {
            code: ErrorCode::KafkaAccessRefused,
            what,
            why,
            check: format!(
                "check sasl.mechanism, sasl.username and sasl.password, and that the user may read topic {topic} and use \
                 consumer group {group}"
            ),
        },
        Fault::Topic => IngestError::NotFound {
            code: ErrorCode::TopicNotFound,
            what,
            check: "check source_topic, source_cluster_name, bootstrap_brokers, and that the user may describe the topic"
                .to_owned(),
        },
        Fault::Setting => IngestError::Invalid {
            code: ErrorCode::KafkaSettingRefused,
            what,
            why: format!("{why}; check the group {group}, its other members, and client_options"),
        },
        Fault::Fatal => {
            IngestError::ClientFatal { cluster: (*cluster).to_owned(), topic: (*topic).to_owned(), why }
        }
    })
}

/// The error of a request that failed: always an error, `Unavailable` when nothing better is known.
pub(super) fn request_error(
    error_: &KafkaError,
    place: &Place<'_>,
    reached: bool,
    request: &str,
) -> IngestError {
    let code = code_of(error_);
    if let Some(error) = error(code, place, reached) {
        return error;
    }
    let why = format!("{} (librdkafka code {code})", meaning(code));
    let (cluster, topic, brokers) =
        (place.cluster.to_owned(), place.topic.to_owned(), place.brokers.to_owned());
    if !reached {
        return IngestError::Unreachable { cluster, topic, brokers, why };
    }
    IngestError::Unavailable {
        code: ErrorCode::KafkaUnavailable,
        what: format!("cluster {}, topic {} ({request})", place.cluster, place.topic),
        why: format!("{why}; if it stays, check bootstrap_brokers and what the brokers advertise"),
    }
}

/// A client that could not be made: the setting at fault, never its value.
pub(super) fn creation_error(error: &KafkaError, cluster: &str) -> IngestError {
    let why = match error {
        KafkaError::ClientConfig(_, _, key, _) => {
            format!("the Kafka client does not accept the setting {key}; check client_options")
        }
        // Local text about files and combinations of settings; made before any broker is asked.
        KafkaError::ClientCreation(text) => format!("the Kafka client refuses its settings: {text}"),
        other => format!("the Kafka client could not be made (librdkafka code {})", code_of(other)),
    };
    IngestError::invalid(format!("cluster {cluster}"), why).coded(ErrorCode::KafkaSettingRefused)
}

#[cfg(test)]
mod tests {
    use siltstone_protocol::ErrorKind;

    use super::*;

    const PLACE: Place<'_> = Place { cluster: "main", topic: "orders", group: "g", brokers: "a:1, b:2" };

    #[test]
    fn access_and_topics_are_for_a_person_and_transport_is_for_the_client() {
        let kind = |code: Code, reached| error(code as i32, &PLACE, reached).map(|error| error.kind());
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__AUTHENTICATION, true), Some(ErrorKind::Invalid));
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, true), Some(ErrorKind::Invalid));
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__SSL, false), Some(ErrorKind::Invalid));
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__SSL, true), Some(ErrorKind::Unavailable));
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__TRANSPORT, true), None);
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, false), None);
        assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__FATAL, true), Some(ErrorKind::Unavailable));
    }

    #[test]
    fn errors_name_cluster_topic_and_what_to_check() {
        let error = error(Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED as i32, &PLACE, true);
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("cluster main, topic orders") && text.contains("consumer group g"), "{text}");
    }

    #[test]
    fn brokers_that_never_answered_are_named_with_what_to_check() {
        let code = rdkafka::types::RDKafkaErrorCode::BrokerTransportFailure;
        let never = request_error(&KafkaError::MetadataFetch(code), &PLACE, false, "metadata");
        assert_eq!(never.kind(), ErrorKind::Unavailable);
        let said = never.to_string();
        for word in ["cluster main", "topic orders", "a:1, b:2", "tls and sasl"] {
            assert!(said.contains(word), "{said}");
        }
        let later = request_error(&KafkaError::MetadataFetch(code), &PLACE, true, "metadata");
        assert!(matches!(later, IngestError::Unavailable { .. }), "{later}");
    }

    #[test]
    fn a_refused_setting_is_named_without_its_value() {
        let error = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "bad".to_owned(),
            "sasl.password".to_owned(),
            "hunter2".to_owned(),
        );
        let text = creation_error(&error, "main").to_string();
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
