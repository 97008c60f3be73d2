-- What a manager that was killed left under way: Blazar itself never takes it up again. Starts and ends are done once
-- more; a lease that was being made or deleted becomes ERROR, which can be deleted.
UPDATE reservations JOIN leases ON leases.id = lease_id
    SET reservations.status = IF(leases.status = 'STARTING', 'pending', 'active')
    WHERE leases.status IN ('STARTING', 'TERMINATING') AND reservations.status <> 'error';
UPDATE events SET status = 'UNDONE' WHERE status = 'IN_PROGRESS';
UPDATE leases SET status = CASE
        WHEN status = 'STARTING' THEN 'PENDING'
        WHEN status = 'TERMINATING' THEN 'ACTIVE'
        WHEN status = 'UPDATING' AND EXISTS (
            SELECT 1 FROM events WHERE lease_id = leases.id AND event_type = 'start_lease' AND status = 'UNDONE'
        ) THEN 'PENDING'
        WHEN status = 'UPDATING' THEN 'ACTIVE'
        ELSE 'ERROR'
    END
    WHERE status IN ('CREATING', 'STARTING', 'UPDATING', 'TERMINATING', 'DELETING');
