//! A web service as SeaORM's own axum example writes it: the connection in axum's state, handlers that pass `&DbConn` on to
//! functions that write models one by one. Batching is turned on where the connection is made; here only the import differs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use batch_seaorm::{DatabaseTransaction, DbConn}; // was: use sea_orm::{DatabaseTransaction, DbConn};
use sea_orm::ActiveValue::Set;
use sea_orm::sqlx::error::ErrorKind;
use sea_orm::{ActiveModelTrait, DbErr, EntityTrait, QueryOrder, RuntimeErr, TransactionTrait};
use serde::{Deserialize, Serialize};

/// The tables of the service.
pub const SCHEMA: &str = "
CREATE TABLE posts (
    id serial PRIMARY KEY, title text NOT NULL UNIQUE CHECK (title <> ''), text text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE tags (id serial PRIMARY KEY, post_id int NOT NULL REFERENCES posts, name text NOT NULL);
";

/// A post as a client sends it.
#[derive(Clone, Debug, Deserialize)]
struct NewPost {
    title: String,
    text: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// A post as a client gets it.
#[derive(Debug, Serialize)]
struct Post {
    #[serde(flatten)]
    post: post::Model,
    tags: Vec<String>,
}

/// The service.
pub fn app(db: DbConn) -> Router {
    Router::new().route("/posts", get(list).post(create)).route("/posts/bulk", post(create_many)).with_state(db)
}

async fn list(State(db): State<DbConn>) -> Result<Json<Vec<Post>>, Error> {
    Ok(Json(find_posts(&db).await?))
}

async fn create(State(db): State<DbConn>, Json(new): Json<NewPost>) -> Result<(StatusCode, Json<Post>), Error> {
    let txn = db.begin().await?;
    let post = create_post(&txn, new).await?;
    txn.commit().await?;
    Ok((StatusCode::CREATED, Json(post)))
}

/// All of them or none: a handler that fails, or whose client goes away, drops its transaction.
async fn create_many(
    State(db): State<DbConn>,
    Json(new): Json<Vec<NewPost>>,
) -> Result<(StatusCode, Json<Vec<Post>>), Error> {
    let txn = db.begin().await?;
    let mut posts = Vec::with_capacity(new.len());
    for post in new {
        posts.push(create_post(&txn, post).await?);
    }
    // With batching, the rows of both tables go out here.
    txn.commit().await?;
    Ok((StatusCode::CREATED, Json(posts)))
}

async fn create_post(txn: &DatabaseTransaction, new: NewPost) -> Result<Post, DbErr> {
    let post = post::ActiveModel { title: Set(new.title), text: Set(new.text), ..Default::default() };
    let post = post.insert(txn).await?;
    for name in &new.tags {
        let tag = tag::ActiveModel { post_id: Set(post.id), name: Set(name.clone()), ..Default::default() };
        tag.insert(txn).await?;
    }
    Ok(Post { post, tags: new.tags })
}

async fn find_posts(db: &DbConn) -> Result<Vec<Post>, DbErr> {
    let posts = post::Entity::find()
        .find_with_related(tag::Entity)
        .order_by_asc(post::Column::Id)
        .order_by_asc(tag::Column::Id)
        .all(db)
        .await?;
    let with_tags =
        |(post, tags): (_, Vec<tag::Model>)| Post { post, tags: tags.into_iter().map(|tag| tag.name).collect() };
    Ok(posts.into_iter().map(with_tags).collect())
}

/// What a handler fails with. Where it comes from, an insert or the commit, does not matter to it.
#[derive(Debug)]
struct Error(DbErr);

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let database_error = match &self.0 {
            DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
                error.as_database_error()
            }
            _ => None,
        };
        let message = || database_error.map_or_else(String::new, |error| error.message().to_owned());
        match database_error.map(|error| error.kind()) {
            Some(ErrorKind::UniqueViolation) => (StatusCode::CONFLICT, message()).into_response(),
            Some(ErrorKind::CheckViolation | ErrorKind::NotNullViolation | ErrorKind::ForeignKeyViolation) => {
                (StatusCode::UNPROCESSABLE_ENTITY, message()).into_response()
            }
            _ => {
                eprintln!("{}", self.0);
                (StatusCode::INTERNAL_SERVER_ERROR, "the database failed").into_response()
            }
        }
    }
}

mod post {
    use sea_orm::entity::prelude::*;
    use serde::Serialize;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize)]
    #[sea_orm(table_name = "posts")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(unique)]
        pub title: String,
        #[sea_orm(column_type = "Text")]
        pub text: String,
        pub created_at: DateTimeUtc,
        #[sea_orm(has_many)]
        pub tags: HasMany<super::tag::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod tag {
    use sea_orm::entity::prelude::*;
    use serde::Serialize;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize)]
    #[sea_orm(table_name = "tags")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub post_id: i32,
        pub name: String,
        #[sea_orm(belongs_to, from = "post_id", to = "id")]
        pub post: BelongsTo<super::post::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
