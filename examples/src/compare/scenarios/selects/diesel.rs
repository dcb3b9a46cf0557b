//! Diesel.

use std::ops::Range;

use anyhow::{Result, ensure};
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;

use super::{age, id};
use crate::compare::scenarios::one_table::users;

pub(super) fn read_rows<C: LoadConnection<Backend = Pg>>(conn: &mut C, rows: Range<usize>) -> Result<()> {
    conn.transaction(|conn| {
        for id in rows.map(id) {
            let user: (i32, String, i32) = users::table.find(id).first(conn)?;
            ensure!((user.0, user.2) == (id, age(id)), "asked for user {id}, Diesel gave {user:?}");
        }
        Ok(())
    })
}
