alter table transactions drop column contradictions;
