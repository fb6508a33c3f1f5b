//! Query strings.

use actix_web::web::Query;

use super::error::ApiError;
use crate::wire::template::TemplateInfo;

/// The parameters of a request.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query string.
    ///
    /// # Errors
    /// [`ApiError::BadRequest`] if it is malformed.
    pub fn read(query: &str) -> Result<Self, ApiError> {
        Query::from_query(query)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|_| ApiError::BadRequest("the query string is malformed".to_owned()))
    }

    /// The value of `name`; the last one if there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of `name`, which may be repeated, or hold several with commas between them.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(key, _)| key == name);
        found.flat_map(|(_, value)| value.split(',')).map(str::trim)
    }

    /// How many things a page may hold: the parameter `limit`, from 1 to `count_max`.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], naming the parameter.
    pub fn page_size(&self, default: u64, count_max: u64) -> Result<usize, ApiError> {
        let count = self.number("limit")?.unwrap_or(default);
        (1..=count_max)
            .contains(&count)
            .then(|| usize::try_from(count).ok())
            .flatten()
            .ok_or_else(|| ApiError::field("limit", format!("must be from 1 to {count_max}")))
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], naming the parameter.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten();
        number
            .map(Some)
            .ok_or_else(|| ApiError::field(name, "must be a whole number that is not negative"))
    }

    /// `true` or `false`; `false` if it is absent.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], naming the parameter.
    pub fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(ApiError::field(name, "must be true or false")),
        }
    }

    /// The keys that `fields` names, each once, in their order; none if it is absent.
    ///
    /// # Errors
    /// [`ApiError::InvalidFields`] if one is not a key of a template.
    pub fn fields(&self) -> Result<Option<Vec<String>>, ApiError> {
        let Some(text) = self.get("fields") else {
            return Ok(None);
        };
        let mut fields: Vec<String> = Vec::new();
        for field in text.split(',').map(str::trim) {
            if !TemplateInfo::FIELDS.contains(&field) {
                return Err(ApiError::InvalidFields(field.chars().take(80).collect()));
            }
            if !fields.iter().any(|known| known == field) {
                fields.push(field.to_owned());
            }
        }
        Ok(Some(fields))
    }
}
