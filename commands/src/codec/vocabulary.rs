//! The names of all event types, in step with the domain's enums by exhaustive matches.

use domain::event::Category;
use domain::{build, keys, namespace, template, webhook};

/// Names the variants of an enum. A variant that is missing here does not compile; one that is
/// named here needs a golden file.
macro_rules! types {
    ($name:ident, $module:ident { $($variant:ident),* $(,)? }) => {
        pub(super) const $name: &[&str] = &[$(stringify!($variant)),*];

        const _: fn(&$module::Event) = |event| match event {
            $($module::Event::$variant { .. } => {})*
        };
    };
}

types!(
    BUILD,
    build {
        Requested,
        Started,
        PhaseStarted,
        PhaseFinished,
        BaseResolved,
        CacheHit,
        CacheMissed,
        CacheBypassed,
        CacheStored,
        FilesCounted,
        StepStarted,
        StepFinished,
        StepLogged,
        RootfsBuilt,
        RootfsGrown,
        VmBooted,
        StartCommandRan,
        ReadinessPassed,
        Snapshotted,
        RetryScheduled,
        Queued,
        CancelRequested,
        Cancelled,
        Failed,
    }
);
types!(
    TEMPLATE,
    template {
        Renamed,
        AliasRemoved,
        VisibilityChanged,
        TagsAssigned,
        TagRemoved,
        ArtifactExpired,
        ArtifactPurged,
        Deleted,
    }
);
types!(
    NAMESPACE,
    namespace {
        NameTaken,
        NameReleased,
        NameClaimed,
        ClaimReleased,
    }
);
types!(
    KEYS,
    keys {
        KeyCreated,
        KeyRevoked
    }
);
types!(
    WEBHOOK,
    webhook {
        WebhookRegistered,
        WebhookPaused,
        WebhookResumed,
        WebhookReplayed,
        DeliveryDeadLettered,
        DeliveryRequeued,
        WebhookDeleted,
    }
);

/// The types that the streams of `category` hold.
pub const fn types_of(category: Category) -> &'static [&'static str] {
    match category {
        Category::Build => BUILD,
        Category::Template => TEMPLATE,
        Category::Namespace => NAMESPACE,
        Category::Keys => KEYS,
        Category::Webhook => WEBHOOK,
    }
}
