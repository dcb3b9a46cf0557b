//! What Diesel's own types and traits need of `batch_diesel::PgConnection`.
