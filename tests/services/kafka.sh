#!/usr/bin/env bash
# One Apache Kafka broker (KRaft), from Maven Central.   kafka.sh fetch|up|down|status
#
# Listeners, from KAFKA_PORT on: PLAINTEXT, controller, SASL_PLAINTEXT, SASL_SSL, SSL. The SASL ones take
# PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. Certificates come from an authority made here.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_KAFKA_VERSION:-4.3.1}"
JARS="$SILTSTONE_LAB/dist/kafka-$VERSION"
DATA="$SILTSTONE_LAB/data/kafka"
TLS="$SILTSTONE_LAB/data/tls"
CONTROLLER=$((KAFKA_PORT + 1)) SASL_PLAINTEXT=$((KAFKA_PORT + 2)) SASL_SSL=$((KAFKA_PORT + 3)) SSL=$((KAFKA_PORT + 4))

fetch() {
  if [ ! -f "$JARS/.complete" ]; then
    say "fetching Kafka $VERSION"
    maven -f "$SERVICES_DIR/kafka.pom.xml" -Dkafka.version="$VERSION" "$MAVEN_DEPENDENCY":copy-dependencies \
      -DoutputDirectory="$JARS" -DincludeScope=runtime
    cat >"$JARS/log4j2.yaml" <<'YAML'
Configuration:
  Appenders:
    Console: {name: out, target: SYSTEM_OUT, PatternLayout: {pattern: "[%d] %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
YAML
    touch "$JARS/.complete"
  fi
  certificates
}

# One authority, one server certificate for this host's loopback names, one client certificate; all PEM.
certificates() {
  [ -f "$TLS/.complete" ] && return 0
  rm -rf "$TLS"; mkdir -p "$TLS"
  (
    cd "$TLS"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=siltstone-tests \
      -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem
    for who in server client; do
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" -keyout "$who.key" -out "$who.csr"
      printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >"$who.ext"
      openssl x509 -req -in "$who.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile "$who.ext" -out "$who.crt"
      cat "$who.key" "$who.crt" >"$who.pem"
    done
  ) 2>"$SILTSTONE_LAB/log/certificates.log" || { cat "$SILTSTONE_LAB/log/certificates.log" >&2; return 1; }
  touch "$TLS/.complete"
}

login() { # login LISTENER: the three mechanisms of one listener
  local scram=org.apache.kafka.common.security.scram.ScramLoginModule
  local plain=org.apache.kafka.common.security.plain.PlainLoginModule
  echo "listener.name.$1.scram-sha-512.sasl.jaas.config=$scram required;"
  echo "listener.name.$1.scram-sha-256.sasl.jaas.config=$scram required;"
  echo "listener.name.$1.plain.sasl.jaas.config=$plain required user_$KAFKA_USER=\"$KAFKA_PASSWORD\";"
}

configuration() {
  cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER,SASL_PLAINTEXT://127.0.0.1:$SASL_PLAINTEXT,SASL_SSL://127.0.0.1:$SASL_SSL,SSL://127.0.0.1:$SSL
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
$(login sasl_plaintext)
$(login sasl_ssl)
ssl.keystore.type=PEM
ssl.keystore.location=$TLS/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$TLS/ca.pem
listener.name.ssl.ssl.client.auth=required
log.dirs=$DATA/log
# Records carry event times of any age: nothing may be deleted by them.
log.retention.ms=-1
log.retention.bytes=-1
# Segments of past event times are rolled by size alone.
log.roll.ms=9223372036854775807
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Tests let sessions expire on purpose, and do not want to wait for it.
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=8388608
PROPERTIES
}

up() {
  if alive kafka; then say "kafka is already up"; return 0; fi
  refuse_taken_port kafka "$KAFKA_PORT" "$CONTROLLER"
  local java template options; java=$(service_java)
  rm -rf "$DATA"; mkdir -p "$DATA"
  configuration >"$DATA/server.properties"
  options=(-Xms64m -Xmx"${SILTSTONE_KAFKA_HEAP:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    -XX:+AutoCreateSharedArchive -Dlog4j2.configurationFile="$JARS/log4j2.yaml" -Dkafka.logs.dir="$SILTSTONE_LAB/log" -cp "$JARS/*")
  # Formatting takes a second JVM; its result is the same each time, so it is kept.
  template="$JARS/.formatted-$KAFKA_USER"
  if [ ! -d "$template" ]; then
    "$java" -XX:SharedArchiveFile="$JARS/format.jsa" "${options[@]}" kafka.tools.StorageTool format \
      -t MkU3OEVBNTcwNTJENDM2Qg -c "$DATA/server.properties" \
      --add-scram "SCRAM-SHA-512=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]" \
      --add-scram "SCRAM-SHA-256=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]" >"$SILTSTONE_LAB/log/kafka-format.log" 2>&1 \
      || { cat "$SILTSTONE_LAB/log/kafka-format.log" >&2; return 1; }
    cp -r "$DATA/log" "$template.part" && mv "$template.part" "$template"
  else
    cp -r "$template" "$DATA/log"
  fi
  spawn kafka "$java" -XX:SharedArchiveFile="$JARS/broker.jsa" "${options[@]}" kafka.Kafka "$DATA/server.properties"
  wait_ready kafka 90 port_open "$KAFKA_PORT"
}

main kafka "$@"
