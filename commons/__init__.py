"""The ground floor that `gid` and `rahf` share: pretrained photo features, weights from the Hub, model cards."""
