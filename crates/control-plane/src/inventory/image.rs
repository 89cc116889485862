//! An image of a whole table: parts are put aside until the last one has come, and then replace the table at once.

use std::collections::HashMap;

use siltstone_protocol::{Ack, image::Image};
use sqlx::Row;

use super::{
    apply::{Held, add, hold, ranges, save},
    delta::sum,
    writer::Source,
};
use crate::{
    crypto::DataKeys,
    store::{StoreError, Tx},
};

/// Takes one part.
pub(super) async fn image(
    tx: &mut Tx,
    source: &Source,
    keys: &DataKeys,
    image: &Image,
    now_ms: i64,
) -> Result<Ack, StoreError> {
    let mut held = hold(tx, source, keys, &image.table, now_ms).await?;
    let version = i64::try_from(image.version).unwrap_or(i64::MAX);
    let is_old = held.uuid == image.table_uuid && version <= held.version;
    if is_old {
        return Ok(held.ack());
    }
    // Of an image that was never finished, nothing is kept.
    sqlx::query("DELETE FROM image_parts WHERE table_id = $1 AND image_id <> $2")
        .bind(&held.id)
        .bind(&image.image_id)
        .execute(tx.connection())
        .await?;
    let row = format!("{}/{}/{}", held.id, image.image_id, image.part);
    let json = serde_json::to_vec(image).map_err(|_| StoreError::Broken { what: "an image" })?;
    sqlx::query(
        "INSERT INTO image_parts (table_id, image_id, part, sealed) VALUES ($1, $2, $3, $4)
         ON CONFLICT (table_id, image_id, part) DO NOTHING",
    )
    .bind(&held.id)
    .bind(&image.image_id)
    .bind(i64::from(image.part))
    .bind(keys.seal("image_parts.sealed", &row, &json)?)
    .execute(tx.connection())
    .await?;
    let parts =
        sqlx::query("SELECT COUNT(*) AS parts FROM image_parts WHERE table_id = $1 AND image_id = $2")
            .bind(&held.id)
            .bind(&image.image_id)
            .fetch_one(tx.connection())
            .await?;
    if parts.try_get::<i64, _>("parts")? < i64::from(image.parts) {
        save(tx, keys, &held).await?;
        return Ok(held.ack());
    }
    replace(tx, keys, &mut held, image, version).await?;
    save(tx, keys, &held).await?;
    Ok(held.ack())
}

async fn replace(
    tx: &mut Tx,
    keys: &DataKeys,
    held: &mut Held,
    last: &Image,
    version: i64,
) -> Result<(), StoreError> {
    held.clear(tx, &last.table_uuid).await?;
    held.set(&last.schema, &last.partition_spec, &last.sort_order, &last.formats);
    for part in 0..last.parts {
        let found =
            sqlx::query("SELECT sealed FROM image_parts WHERE table_id = $1 AND image_id = $2 AND part = $3")
                .bind(&held.id)
                .bind(&last.image_id)
                .bind(i64::from(part))
                .fetch_one(tx.connection())
                .await?;
        let row = format!("{}/{}/{part}", held.id, last.image_id);
        let json = keys.open("image_parts.sealed", &row, &found.try_get::<Vec<u8>, _>("sealed")?)?;
        let part: Image =
            serde_json::from_slice(&json).map_err(|_| StoreError::Broken { what: "an image" })?;
        let statistics: HashMap<_, _> =
            part.statistics.iter().map(|of_file| (of_file.path(), of_file)).collect();
        part.statistics.iter().for_each(|of_file| held.note(of_file));
        add(tx, keys, &held.id, version, &part.files, &statistics).await?;
        ranges(tx, &held.id, &part.ranges).await?;
        held.files += i64::try_from(part.files.len()).unwrap_or(i64::MAX);
        held.rows += sum(&part.files, |file| file.rows);
        held.bytes += sum(&part.files, |file| file.bytes);
    }
    (held.version, held.committed_ms) = (version, last.committed_ms);
    sqlx::query("DELETE FROM image_parts WHERE table_id = $1")
        .bind(&held.id)
        .execute(tx.connection())
        .await?;
    Ok(())
}
