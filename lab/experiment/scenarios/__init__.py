"""What is known of an application: its scenario, its own client or work, and what one look at it tells."""
