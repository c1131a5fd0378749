"""The documentation: pages by hand, and the reference pages made from the catalog."""
