"""The verbs of ``lab-oci``, a module for a few of them each: `lab.runtime.oci.main` imports the one it needs."""
