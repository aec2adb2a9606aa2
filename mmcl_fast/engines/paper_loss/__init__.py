"""The paper's loss in one pass, with its gradient: the forms that the engines use."""
