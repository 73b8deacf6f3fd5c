drop table verification_schedule;
