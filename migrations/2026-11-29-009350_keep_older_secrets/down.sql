alter table notification_endpoints drop column older_secret;
