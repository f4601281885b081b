"""From a configuration to the plan that the small process carries out."""
