//! Shares: how flows spread over endpoints.
