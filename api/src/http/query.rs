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

    /// How many elements a page may have: `limit`, from 1 to `max`.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], naming the parameter.
    pub fn page_size(&self, default: u64, max: u64) -> Result<usize, ApiError> {
        let asked = self.number("limit")?;
        let count = asked.unwrap_or(default);
        (1..=max)
            .contains(&count)
            .then(|| usize::try_from(count).ok())
            .flatten()
            .ok_or_else(|| ApiError::field("limit", format!("must be from 1 to {max}")))
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
